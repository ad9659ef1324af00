//! The commands that findings print, on the stand-in's resources.

use serde_json::{Value, json};

use super::store::Store;

pub(super) fn run(store: &mut Store, command: &str) -> Result<(), String> {
    let words = words(command)?;
    let (names, options): (Vec<&String>, Vec<&String>) = {
        let first = words
            .iter()
            .position(|word| word.starts_with("--"))
            .unwrap_or(words.len());
        (words[..first].iter().collect(), words[first..].iter().collect())
    };
    let option = |name: &str| {
        let place = options.iter().position(|word| word.as_str() == name);
        let value = place.and_then(|place| options.get(place + 1));
        value
            .map(|value| value.as_str())
            .ok_or_else(|| format!("{name} is missing in {command}"))
    };
    let provider = || {
        let (subscription, group) = (option("--subscription")?, option("--resource-group")?);
        Ok::<_, String>(format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers"
        ))
    };
    let verb: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    match verb.as_slice() {
        ["az", "network", "route-table", "create"] => {
            let id = format!(
                "{}/Microsoft.Network/routeTables/{}",
                provider()?,
                option("--name")?
            );
            store.put(
                &id,
                json!({"location": option("--location")?, "properties": {"routes": [], "subnets": []}}),
            );
            Ok(())
        }
        [
            "az",
            "network",
            "route-table",
            "route",
            what @ ("create" | "update" | "delete"),
        ] => {
            let table = format!(
                "{}/Microsoft.Network/routeTables/{}",
                provider()?,
                option("--route-table-name")?
            );
            let name = option("--name")?;
            let of = |route: &Value| {
                route["name"]
                    .as_str()
                    .is_some_and(|n| n.eq_ignore_ascii_case(name))
            };
            let before = store.get(&table).ok_or_else(|| format!("there is no {table}"))?;
            let there = before["properties"]["routes"]
                .as_array()
                .is_some_and(|routes| routes.iter().any(of));
            if there != (*what != "create") {
                return Err(format!(
                    "route {name} is {}there",
                    if there { "" } else { "not " }
                ));
            }
            let route = match *what {
                "delete" => None,
                _ => Some(
                    json!({"name": name, "properties": {"addressPrefix": option("--address-prefix")?,
                    "nextHopType": option("--next-hop-type")?, "nextHopIpAddress": option("--next-hop-ip-address")?}}),
                ),
            };
            store.change(&table, |table| {
                if let Some(routes) = table["properties"]["routes"].as_array_mut() {
                    routes.retain(|route| !of(route));
                    routes.extend(route);
                }
            })
        }
        ["az", "network", "nic", "update"] => {
            let on = option("--ip-forwarding")? == "true";
            store.change(option("--ids")?, |nic| {
                nic["properties"]["enableIPForwarding"] = json!(on);
            })
        }
        ["az", "vmss", update @ ("update" | "update-instances")] => {
            let of = "Microsoft.Compute/virtualMachineScaleSets";
            let set = format!("{}/{of}/{}", provider()?, option("--name")?);
            if *update == "update" {
                let (path, value) = option("--set")?
                    .split_once('=')
                    .ok_or_else(|| format!("--set without a value in {command}"))?;
                let value: Value = serde_json::from_str(value).map_err(|error| error.to_string())?;
                let mut done = Err(String::new());
                store.change(&set, |set| done = assign(set, path, value))?;
                done
            } else {
                bring_in_line(store, &set, option("--instance-ids")?)
            }
        }
        ["az", "network", "vnet", "update"] => {
            option("--address-prefixes")?;
            let first = options.iter().position(|word| *word == "--address-prefixes");
            let after = options.iter().skip(first.map_or(0, |place| place + 1));
            let all: Vec<&&String> = after.take_while(|word| !word.starts_with("--")).collect();
            store.change(option("--ids")?, |network| {
                network["properties"]["addressSpace"]["addressPrefixes"] = json!(all);
            })
        }
        ["az", "network", "vnet", "subnet", "update"] => {
            let (subnet, table) = (option("--ids")?.to_owned(), option("--route-table")?.to_owned());
            let network = subnet.split("/subnets/").next().unwrap_or_default().to_owned();
            store.change(&table, |table| {
                if let Some(subnets) = table["properties"]["subnets"].as_array_mut() {
                    subnets.push(json!({"id": subnet}));
                }
            })?;
            store.change(&network, |network| {
                let subnets = network["properties"]["subnets"].as_array_mut();
                for one in subnets.into_iter().flatten() {
                    if one["id"]
                        .as_str()
                        .is_some_and(|id| id.eq_ignore_ascii_case(&subnet))
                    {
                        one["properties"]["routeTable"] = json!({"id": table});
                    }
                }
            })
        }
        _ => Err(format!("no finding prints {command}")),
    }
}

/// As `--set a.b[0].c=value` does, which shows resources without their `properties`: what it leads to has to be there, in this spelling.
fn assign(value: &mut Value, path: &str, new: Value) -> Result<(), String> {
    let mut at = value;
    for step in path.split('.') {
        let (name, place) = match step.split_once('[') {
            None => (step, None),
            Some((name, rest)) => {
                let place = rest
                    .strip_suffix(']')
                    .and_then(|place| place.parse::<usize>().ok());
                (
                    name,
                    Some(place.ok_or_else(|| format!("{step} is no place in a list"))?),
                )
            }
        };
        if at.get(name).is_none() {
            at = &mut at["properties"];
        }
        at = at
            .get_mut(name)
            .ok_or_else(|| format!("there is no {name} in {path}"))?;
        if let Some(place) = place {
            at = at
                .get_mut(place)
                .ok_or_else(|| format!("{name} has no element {place}"))?;
        }
    }
    *at = new;
    Ok(())
}

/// A machine's interfaces become what the model's of the same name are.
fn bring_in_line(store: &mut Store, set: &str, instance: &str) -> Result<(), String> {
    let body = store.get(set).ok_or_else(|| format!("there is no {set}"))?;
    let profile = &body["properties"]["virtualMachineProfile"]["networkProfile"];
    let model = profile["networkInterfaceConfigurations"].clone();
    for interface in model.as_array().into_iter().flatten() {
        let name = interface["name"].as_str().unwrap_or_default();
        let nic = format!("{set}/virtualMachines/{instance}/networkInterfaces/{name}");
        let on = interface["properties"]["enableIPForwarding"].clone();
        store.change(&nic, |nic| nic["properties"]["enableIPForwarding"] = on)?;
    }
    Ok(())
}

/// As a shell takes a line apart: words between blanks, what is between single quotes as it is, the rest as it is but for `\'`.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(format!("a quote is open in {line}")),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '[' | ']' | '*' | '?' | '$' | '&' | ';' | '|' | '(' | ')' | '<' | '>' => {
                return Err(format!("a shell would not take {c} as it is in {line}"));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}
