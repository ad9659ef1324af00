//! Requests, one on each connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::PASSWORD;
use super::store::{Fault, Seen, Store, conflict};

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

impl Answer {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, json!({"error": {"code": code, "message": message}}))
    }

    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

pub(super) fn serve(listener: &TcpListener, store: &Arc<Mutex<Store>>, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(stream), store) = (stream, Arc::clone(store)) else {
            continue;
        };
        // Whoever is cut off in the middle gets no answer.
        let talk = move || drop(exchange(&stream, &store));
        let _full = std::thread::Builder::new().name("arm-request".into()).spawn(talk);
    }
}

fn exchange(stream: &TcpStream, store: &Mutex<Store>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = read(stream)?;
    let answer = {
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        store.settle();
        let answer = answer(&mut store, &request);
        if request.method != "GET" {
            store.seen.push(Seen {
                method: request.method.clone(),
                path: request.path.clone(),
                status: answer.as_ref().map_or(0, |answer| answer.status),
            });
        }
        answer.map(|answer| (answer, store.remaining))
    };
    let Some((mut answer, remaining)) = answer else {
        return Ok(());
    };
    if let Some(left) = remaining {
        let kind = if request.method == "PUT" {
            "x-ms-ratelimit-remaining-subscription-writes"
        } else {
            "x-ms-ratelimit-remaining-subscription-reads"
        };
        answer.headers.push((kind, left.to_string()));
    }
    let body = if answer.body.is_null() {
        Vec::new()
    } else {
        answer.body.to_string().into_bytes()
    };
    let mut text = format!(
        "HTTP/1.1 {} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n",
        answer.status,
        body.len()
    );
    for (name, value) in answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = stream;
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    stream.write_all(&body)
}

fn read(stream: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || -> io::Result<String> {
        let mut text = String::new();
        reader.read_line(&mut text)?;
        Ok(text.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.replace("%20", " "), query.to_owned());
    let mut headers = Vec::new();
    loop {
        let text = line()?;
        let Some((name, value)) = text.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Request {
        method,
        path,
        query,
        headers,
        body,
    })
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// `None`: the connection ends without one.
fn answer(store: &mut Store, request: &Request) -> Option<Answer> {
    let path = request.path.as_str();
    if path == "/metadata/identity/oauth2/token" {
        return Some(of_machine(store, request));
    }
    if path.ends_with("/oauth2/v2.0/token") {
        return Some(of_directory(store, request));
    }
    let bearer = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    if !bearer.is_some_and(|token| store.tokens.iter().any(|known| known == token)) {
        return Some(Answer::error(
            401,
            "InvalidAuthenticationToken",
            "the token is not known",
        ));
    }
    if store.forbidden.iter().any(|part| path.contains(part.as_str())) {
        let message = format!("the client does not have authorization to perform action on {path}");
        return Some(Answer::error(403, "AuthorizationFailed", &message));
    }
    if let Some(name) = path.strip_prefix("/operations/") {
        return Some(match store.operation(name) {
            None => Answer::error(404, "NotFound", "no such operation"),
            Some(None) => Answer::new(200, json!({"status": "InProgress"})).with("retry-after", "0".into()),
            Some(Some(_)) => Answer::new(200, json!({"status": "Succeeded"})),
        });
    }
    if let Some(name) = path.strip_prefix("/results/") {
        let at = format!("{}/results/{name}", store.base);
        return Some(match store.operation(name) {
            None => Answer::error(404, "NotFound", "no such operation"),
            Some(None) => Answer::new(202, Value::Null)
                .with("location", at)
                .with("retry-after", "0".into()),
            Some(Some(result)) => Answer::new(200, result),
        });
    }
    if !request.query.contains("api-version=") {
        return Some(Answer::error(
            400,
            "MissingApiVersionParameter",
            "api-version is missing",
        ));
    }
    if !knows_version(request) {
        let message = format!("No registered resource provider found for {path} and this api-version");
        return Some(Answer::error(400, "NoRegisteredProviderFound", &message));
    }
    if !store.has_group(path) {
        let message = format!("the resource group of {path} could not be found");
        return Some(Answer::error(404, "ResourceGroupNotFound", &message));
    }
    match request.method.as_str() {
        "GET" => Some(get(store, request)),
        "PUT" => put(store, request),
        "POST" => Some(post(store, path)),
        _ => Some(Answer::error(405, "MethodNotAllowed", "not here")),
    }
}

/// Each provider has versions of its own, and scale sets' network interfaces have one only.
fn knows_version(request: &Request) -> bool {
    let path = request.path.to_ascii_lowercase();
    let known: &[&str] = if path.contains("/providers/microsoft.network/") {
        &["2023-09-01", "2024-05-01"]
    } else if path.contains("/microsoft.compute/virtualmachinescalesets/")
        && path.contains("/networkinterfaces")
    {
        &["2018-10-01"]
    } else if path.contains("/providers/microsoft.compute/") {
        &["2024-03-01", "2024-07-01"]
    } else {
        &[]
    };
    let version = request
        .query
        .split('&')
        .find_map(|part| part.strip_prefix("api-version="));
    version.is_some_and(|version| known.contains(&version))
}

fn get(store: &mut Store, request: &Request) -> Answer {
    let path = request.path.as_str();
    if let Some(status) = store.read_faults.pop_front() {
        let answer = Answer::error(status, "Trouble", "come again");
        return if status == 429 {
            answer.with("retry-after", "1".into())
        } else {
            answer
        };
    }
    if let Some(body) = store.get(path) {
        return Answer::new(200, body.clone())
            .with("etag", body["etag"].as_str().unwrap_or_default().to_owned());
    }
    // A collection has an odd number of parts after `providers`.
    let after = path.split("/providers/").nth(1).unwrap_or_default();
    if after.split('/').count() % 2 == 1 {
        return Answer::error(
            404,
            "ResourceNotFound",
            &format!("The Resource '{after}' was not found."),
        );
    }
    let skip = request
        .query
        .split('&')
        .find_map(|part| part.strip_prefix("$skiptoken="));
    let skip: usize = skip.and_then(|skip| skip.parse().ok()).unwrap_or(0);
    let children = store.children(path);
    let value: Vec<Value> = children
        .iter()
        .skip(skip)
        .take(store.page)
        .map(|body| (*body).clone())
        .collect();
    let end = skip.saturating_add(store.page);
    let mut body = json!({"value": value});
    if end < children.len() {
        let version = request
            .query
            .split('&')
            .find(|part| part.starts_with("api-version="));
        let version = version.unwrap_or_default();
        let next = format!("{}{path}?{version}&$skiptoken={end}", store.base);
        body["nextLink"] = json!(next);
    }
    Answer::new(200, body)
}

fn put(store: &mut Store, request: &Request) -> Option<Answer> {
    let path = request.path.as_str();
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return Some(Answer::error(400, "InvalidRequestContent", "no JSON"));
    };
    if store.is_busy(path) {
        let answer = Answer::error(
            429,
            "RetryableErrorDueToAnotherOperation",
            "another operation is going on",
        );
        return Some(answer.with("retry-after", "0".into()));
    }
    let fault = store.write_faults.pop_front();
    let (mut silent, mut lost) = (false, false);
    match fault {
        Some(Fault::Throttled(wait)) => {
            let answer = Answer::error(
                429,
                "RetryableErrorDueToAnotherOperation",
                "another operation is going on",
            );
            return Some(answer.with("retry-after", wait.to_string()));
        }
        Some(Fault::Status(status)) => return Some(Answer::error(status, "InternalServerError", "trouble")),
        Some(Fault::NotDone) => return None,
        // Somebody writes the same again, which is a change to whoever has read before.
        Some(Fault::Changed) => drop(store.change(path, |_| ())),
        Some(Fault::DoneWithoutAnswer) => silent = true,
        Some(Fault::Lost) => lost = true,
        None => {}
    }
    let known = store.get(path).cloned();
    let etag = known.as_ref().and_then(|body| body["etag"].as_str());
    if let Some(wanted) = request.header("if-match")
        && wanted != "*"
        && Some(wanted) != etag
    {
        let message = format!("ETag provided in if-match header {wanted} does not match that of {path}");
        return Some(Answer::error(412, "PreconditionFailed", &message));
    }
    if let Some((code, message)) = conflict(&body, store.route_limit) {
        return Some(Answer::error(400, code, &message));
    }
    // Which subnets use it is not the table's to say.
    let mut body = body;
    if let Some(known) = &known {
        body["properties"]["subnets"] = known["properties"]["subnets"].clone();
    }
    let write = (!lost).then(|| (path.to_owned(), body.clone()));
    let name = store.begin(write, Value::Null);
    if store.settles.is_zero() {
        store.settle();
    }
    if silent {
        return None;
    }
    let at = format!("{}/operations/{name}", store.base);
    let status = if known.is_some() { 200 } else { 201 };
    body["properties"]["provisioningState"] = json!("Updating");
    Some(
        Answer::new(status, body)
            .with("azure-asyncoperation", at)
            .with("retry-after", "0".into()),
    )
}

fn post(store: &mut Store, path: &str) -> Answer {
    let Some(nic) = path.strip_suffix("/effectiveRouteTable") else {
        return Answer::error(404, "NotFound", "no such action");
    };
    let routes = store.effective.get(nic).cloned().unwrap_or_else(|| json!([]));
    let result = if store.results.whole {
        json!({"value": routes})
    } else {
        json!({"status": "Succeeded"})
    };
    let name = store.begin(None, result);
    let mut answer = Answer::new(202, Value::Null).with("retry-after", "0".into());
    if store.results.operation {
        let at = format!("{}/operations/{name}", store.base);
        answer = answer.with("azure-asyncoperation", at);
    }
    if store.results.location {
        let at = format!("{}/results/{name}", store.base);
        answer = answer.with("location", at);
    }
    answer
}

fn grant(store: &mut Store, strings: bool) -> Answer {
    store.granted += 1;
    let token = format!("secret-token-{}", store.granted);
    store.tokens.push(token.clone());
    let body = if strings {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let end = now.unwrap_or_default().as_secs() + 3600;
        json!({"access_token": token, "expires_on": end.to_string(), "token_type": "Bearer"})
    } else {
        json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})
    };
    Answer::new(200, body)
}

fn of_machine(store: &mut Store, request: &Request) -> Answer {
    if request.header("metadata") != Some("true") {
        return Answer::new(
            400,
            json!({"error": "bad_request_102", "error_description": "Required metadata header not specified"}),
        );
    }
    if let Some(status) = store.read_faults.pop_front() {
        return Answer::new(status, Value::Null);
    }
    store.identities.push(request.query.clone());
    if request.query.contains("client_id=unknown") {
        return Answer::new(
            400,
            json!({"error": "invalid_request", "error_description": "Identity not found"}),
        );
    }
    grant(store, true)
}

fn of_directory(store: &mut Store, request: &Request) -> Answer {
    let form = String::from_utf8_lossy(&request.body);
    let has = |key: &str, value: &str| form.split('&').any(|part| part == format!("{key}={value}"));
    let proof = has("client_secret", PASSWORD) || has("client_assertion", &store.assertion);
    if proof && has("client_id", "app") && has("grant_type", "client_credentials") {
        return grant(store, false);
    }
    let description = "AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1";
    Answer::new(
        401,
        json!({"error": "invalid_client", "error_description": description}),
    )
}
