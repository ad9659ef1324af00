//! Connections: HTTP/1.1 as far as clients need it, and the watches on them.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::{self, Answer, Request};
use super::store::{Happened, Said, bookmark};
use super::{BOOKMARKS, Disturbance, Shared, lock, protobuf};

/// Longest head of a request.
const HEAD: usize = 64 << 10;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if lock(&shared.faults).away {
            continue;
        }
        tokio::spawn(disturbed(stream, Arc::clone(&shared)));
    }
}

/// Serves a connection until it ends, is ended, or goes silent.
async fn disturbed(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut disturbance = shared.disturbance.subscribe();
    let at_first = *disturbance.borrow_and_update();
    let is_silent = {
        let mut served = pin!(serve(&mut stream, &shared));
        let mut ended = pin!(ended(&mut disturbance, at_first));
        poll_fn(|context| {
            if let Poll::Ready(is_silent) = ended.as_mut().poll(context) {
                return Poll::Ready(is_silent);
            }
            // A client that went away is no error.
            served.as_mut().poll(context).map(|_result| false)
        })
        .await
    };
    if is_silent {
        // Held open until the server, or the client, has had enough.
        let mut ignored = [0; 1024];
        while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
    }
}

/// Whether the connection falls silent, rather than ends.
async fn ended(disturbance: &mut watch::Receiver<Disturbance>, at_first: Disturbance) -> bool {
    loop {
        if disturbance.changed().await.is_err() {
            return false;
        }
        let now = *disturbance.borrow_and_update();
        if now != at_first {
            return now.closed == at_first.closed;
        }
    }
}

async fn serve(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(mut request) = head(stream, &mut buffer).await? {
        let is_list = {
            let store = lock(&shared.store);
            let shelf = store.shelves.get(&request.path);
            let can = shelf.is_some_and(|shelf| protobuf::serves(shelf.resource.kind()));
            request.takes_protobuf &= can && !lock(&shared.faults).no_protobuf;
            shelf.is_some()
        };
        if let Some(mut answer) = refused(shared, &request, is_list) {
            if request.takes_protobuf {
                answer = answer.in_protobuf();
            }
            send(stream, &answer).await?;
            continue;
        }
        if request.takes_protobuf {
            shared.binary.fetch_add(1, Ordering::Relaxed);
        }
        let slow = lock(&shared.faults).slow;
        if is_list && !slow.is_zero() && request.get("resourceVersion").is_empty() {
            sleep(slow).await;
        }
        if is_list && request.is("watch") {
            shared.watches.fetch_add(1, Ordering::Relaxed);
            watch(stream, shared, &request).await?;
            continue;
        }
        if is_list && request.get("continue").is_empty() {
            shared.lists.fetch_add(1, Ordering::Relaxed);
        }
        let answer = {
            let store = lock(&shared.store);
            answer::discovery(&store, &request.path).unwrap_or_else(|| answer::page(&store, &request))
        };
        send(stream, &answer).await?;
    }
    Ok(())
}

fn refused(shared: &Shared, request: &Request, is_list: bool) -> Option<Answer> {
    let faults = lock(&shared.faults).clone();
    if faults.forbidden.contains(&request.path) {
        let verb = if request.is("watch") { "watch" } else { "list" };
        return Some(answer::forbidden(&request.path, verb));
    }
    if let Some((status, paths)) = faults.status
        && paths.contains(&request.path)
    {
        return Some(answer::refusal(status, "", "out of order"));
    }
    if is_list && faults.no_streams && request.is("sendInitialEvents") {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is \
                       enabled";
        return Some(answer::refusal(422, "Invalid", message));
    }
    None
}

/// Reads a request; `None` at the end.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default()).into_owned();
            buffer.drain(..end + 4);
            return Ok(Some(Request::new(&text)));
        }
        if buffer.len() > HEAD || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn send(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let Answer { code, media, body } = answer;
    let length = body.len();
    let head = format!("HTTP/1.1 {code} -\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}

async fn chunk(stream: &mut TcpStream, content: &[u8]) -> io::Result<()> {
    let mut bytes = format!("{:x}\r\n", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(b"\r\n");
    stream.write_all(&bytes).await
}

/// The last chunk of an answer.
const LAST: &[u8] = b"0\r\n\r\n";

/// One watch, from its head to its end.
async fn watch(stream: &mut TcpStream, shared: &Shared, request: &Request) -> io::Result<()> {
    let is_framed = request.takes_protobuf;
    let media = match is_framed {
        true => format!("{};stream=watch", answer::PROTOBUF),
        false => answer::JSON.to_owned(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let unfinished = request.unfinished();
    let seconds = request.get("timeoutSeconds").parse().unwrap_or(3600);
    let end = Instant::now() + Duration::from_secs(seconds);
    let told = |happened: &Happened| {
        if unfinished {
            happened.unfinished.clone()
        } else {
            Some(happened.said.clone())
        }
    };
    let begun = {
        let mut store = lock(&shared.store);
        let now = store.version;
        store.shelves.get_mut(&request.path).map(|shelf| {
            let initial = request.is("sendInitialEvents").then(|| shelf.snapshot());
            let version = match request.get("resourceVersion").parse() {
                Ok(version) => version,
                Err(_) => now,
            };
            let resource = shelf.resource.clone();
            (version, initial, shelf.changed.subscribe(), resource)
        })
    };
    let Some((mut version, initial, mut changed, resource)) = begun else {
        return stream.write_all(LAST).await;
    };
    if let Some(objects) = initial {
        shared.lists.fetch_add(1, Ordering::Relaxed);
        // Many objects in one chunk, as they come out of a buffer.
        for objects in objects.chunks(64) {
            let mut events = Vec::new();
            let shown = objects
                .iter()
                .filter(|stored| !(unfinished && stored.is_finished));
            for stored in shown {
                stored.add_to(&mut events, &resource, is_framed);
            }
            // An empty one would be the last.
            if !events.is_empty() {
                chunk(stream, &events).await?;
            }
        }
        chunk(stream, bookmark(&resource, version, true).bytes(is_framed)).await?;
    }
    let mut last_word = Instant::now();
    loop {
        let _seen = *changed.borrow_and_update();
        let found = {
            let store = lock(&shared.store);
            match store.shelves.get(&request.path) {
                // The resource is gone; or what happened is not known any more.
                None => None,
                Some(shelf) if version < shelf.forgotten => Some(Err(())),
                Some(shelf) => {
                    let events = shelf.since(version).filter_map(told);
                    let lines = events.fold(Vec::new(), |mut bytes, said| {
                        bytes.extend_from_slice(said.bytes(is_framed));
                        bytes
                    });
                    let upto = shelf.log.back().map_or(version, |last| last.version.max(version));
                    // Bookmarks name what the whole server has come to.
                    Some(Ok((lines, upto, store.version)))
                }
            }
        };
        let upto = match found {
            None => break,
            Some(Err(())) => {
                chunk(stream, Said::error(&answer::gone().body).bytes(is_framed)).await?;
                break;
            }
            Some(Ok((lines, upto, now))) => {
                version = upto;
                if !lines.is_empty() {
                    chunk(stream, &lines).await?;
                    last_word = Instant::now();
                }
                now
            }
        };
        if Instant::now() >= end {
            break;
        }
        if request.is("allowWatchBookmarks") && last_word.elapsed() >= BOOKMARKS {
            version = version.max(upto);
            chunk(stream, bookmark(&resource, version, false).bytes(is_framed)).await?;
            last_word = Instant::now();
        }
        // Whether it is for news, for a bookmark or for the end.
        let wait = timeout(BOOKMARKS, changed.changed()).await;
        if matches!(wait, Ok(Err(_))) {
            break;
        }
    }
    stream.write_all(LAST).await
}
