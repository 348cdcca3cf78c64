//! What a gateway answered, for people.

use serde_json::Value;

use crate::cli::table::{Table, items, shown, word};

pub(super) fn status(status: &Value) -> String {
    let configuration = &status["configuration"];
    let mut text = format!(
        "portcullis {}, {}, up for {}\n{}, generation {}, loaded at {}\n",
        word(&status["version"]),
        if status["ready"] == true { "ready" } else { "NOT ready" },
        age(status["uptime_seconds"].as_f64().unwrap_or_default()),
        word(&configuration["file"]),
        word(&configuration["generation"]),
        word(&configuration["loaded_at"]),
    );
    text += &format!("sandbox: {}\n", word(&status["sandbox"]["summary"]));
    if let Some(why) = configuration["stale_because"].as_str() {
        text += &format!("NOT in force is what is on disk: {why}\n");
    }
    for warning in items(&configuration["warnings"]) {
        text += &format!("warning: {}\n", word(warning));
    }
    let mut listeners = Table::new(&["LISTENER", "ADDRESS", "CONNECTIONS", "FULL", "RESUMED", "FAILED"]);
    for listener in items(&status["listeners"]) {
        let shakes = &listener["handshakes"];
        let cells = [
            &listener["name"],
            &listener["address"],
            &listener["open_connections"],
            &shakes["full"],
            &shakes["resumed"],
            &shakes["failed"],
        ];
        listeners.add(cells.map(word).to_vec());
    }
    let mut endpoints = Table::new(&["POOL", "ENDPOINT", "AVAILABLE", "IN FLIGHT"]);
    for pool in items(&status["pools"]) {
        for endpoint in items(&pool["endpoints"]) {
            let available = if endpoint["available"] == true { "yes" } else { "NO" };
            let (address, in_flight) = (word(&endpoint["address"]), word(&endpoint["in_flight"]));
            endpoints.add(vec![word(&pool["name"]), address, available.into(), in_flight]);
        }
    }
    format!("{text}\n{listeners}\n\n{endpoints}")
}

pub(super) fn connections(found: &[Value], open: &Value, next: &Value) -> String {
    let more = if next.is_null() { "" } else { ", and there are more (hint: --limit)" };
    format!("{}\n\n{} shown of {} open{more}", table(found), found.len(), word(open))
}

fn table(connections: &[Value]) -> Table {
    let headings = ["ID", "LISTENER", "PEER", "SINCE", "TLS", "PROTOCOL", "REQUESTS", "TRUST", "SUBJECT"];
    let mut table = Table::new(&headings);
    for connection in connections {
        let cells = [
            &connection["id"],
            &connection["listener"],
            &connection["peer"],
            &connection["since"],
            &connection["tls_version"],
            &connection["protocol"],
            &connection["requests"],
            &connection["client"]["trust_domain"],
            &connection["client"]["subject"],
        ];
        table.add(cells.map(word).to_vec());
    }
    table
}

pub(super) fn ended(done: &Value) -> String {
    match done["ended"].as_u64() {
        Some(0) => "no connection was open".to_owned(),
        Some(1) => "1 connection ended".to_owned(),
        _ => format!("{} connections ended", word(&done["ended"])),
    }
}

pub(super) fn block(done: &Value) -> String {
    let until = done["until"].as_str().map_or_else(String::new, |until| format!(" until {until}"));
    let again = if done["replaced"] == true { ", in place of an earlier block" } else { "" };
    format!("blocked{until}{again}; {}", ended(done))
}

pub(super) fn unblock(done: &Value) -> String {
    format!("no longer blocked: {}", word(&done["unblocked"]))
}

pub(super) fn blocked(all: &Value) -> String {
    if all["file"].is_null() {
        return "nobody can be blocked: there is no `server.state_directory` to keep it in".to_owned();
    }
    let mut table = Table::new(&["UNTIL", "TRUST", "BY", "REASON"]);
    for entry in items(&all["blocked"]) {
        let until = entry["until"].as_str().unwrap_or("for ever").to_owned();
        table.add(vec![until, word(&entry["trust"]), named_by(entry), word(&entry["reason"])]);
    }
    format!("{table}\n\n{} blocked, kept in {}", items(&all["blocked"]).len(), word(&all["file"]))
}

/// How an entry of a deny list names a client, as flags of `unblock`.
fn named_by(entry: &Value) -> String {
    let text = |flag: &str, key: &str| entry[key].as_str().map(|value| format!("--{flag} {value}"));
    let issuer = entry["issuer"].as_str().map(|issuer| format!(" --issuer '{issuer}'"));
    let names = |key: &str| {
        let names = entry[key].as_object().into_iter().flatten();
        names.map(|(name, value)| format!("{name}={}", word(value))).collect::<Vec<_>>().join(",")
    };
    text("fingerprint", "fingerprint")
        .or_else(|| text("key-fingerprint", "key_fingerprint"))
        .or_else(|| text("serial", "serial").map(|serial| serial + &issuer.unwrap_or_default()))
        .unwrap_or_else(|| match (names("subject"), names("san")) {
            (subject, san) if san.is_empty() => format!("--subject {subject}"),
            // Only somebody who edits the file writes such.
            (subject, san) => format!("subject {}, san {san}", shown(&subject)),
        })
}

pub(super) fn who(found: &Value) -> String {
    let mut parts: Vec<String> = items(&found["certificates"]).iter().map(certificate_text).collect();
    if let Some(seen) = found["seen"].as_object() {
        let expiry = word(&seen["not_after"]);
        parts
            .push(format!("a certificate that expires {expiry}\n  seen       {}", seen_text(&found["seen"])));
    } else if parts.is_empty() {
        parts.push(
            "no certificate of this client is at hand (hint: --cert FILE says whether it would be let in)"
                .into(),
        );
    }
    if let Some(block) = found["block"].as_object() {
        let until = block
            .get("until")
            .and_then(Value::as_str)
            .map_or("for ever".into(), |until| format!("until {until}"));
        let reason = block.get("reason").and_then(Value::as_str).unwrap_or("no reason was given");
        parts.push(format!("BLOCKED {until}: {}", shown(reason)));
    }
    let (open, connections) = (word(&found["open"]), items(&found["connections"]));
    parts.push(match connections.len() {
        0 => "no open connection".to_owned(),
        some => {
            let networks = word(&found["networks"]);
            format!("{open} open from {networks} networks, {some} shown\n{}", table(connections))
        }
    });
    parts.join("\n\n")
}

fn certificate_text(certificate: &Value) -> String {
    let names: Vec<String> = items(&certificate["alternative_names"]).iter().map(word).collect();
    let names = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    let mut text = word(&certificate["subject"]);
    for (name, value) in [
        ("issuer", word(&certificate["issuer"])),
        ("serial", word(&certificate["serial"])),
        ("valid", format!("{} to {}", word(&certificate["not_before"]), word(&certificate["not_after"]))),
        ("SHA-256", word(&certificate["fingerprint"])),
        ("key", word(&certificate["key_fingerprint"])),
        ("names", names),
        ("seen", seen_text(&certificate["seen"])),
    ] {
        text += &format!("\n  {name:9}  {value}");
    }
    for listener in items(&certificate["listeners"]) {
        let name = word(&listener["listener"]);
        text += &format!("\n  {name:9}  {}", listener_text(listener));
    }
    text
}

fn listener_text(listener: &Value) -> String {
    if listener["admitted"] == true {
        let lane = listener["quarantined"].as_str();
        let lane = lane.map_or_else(String::new, |why| format!(", in quarantine: {why}"));
        format!("lets it in, by trust domain {}{lane}", word(&listener["trust_domain"]))
    } else {
        format!("does NOT let it in: {} ({})", word(&listener["detail"]), word(&listener["reason"]))
    }
}

fn seen_text(seen: &Value) -> String {
    if seen.is_null() {
        return "not noted".to_owned();
    }
    let superseded =
        if seen["superseded"] == true { ", a later certificate of this name has come since" } else { "" };
    format!("first {}, last {}{superseded}", word(&seen["first"]), word(&seen["last"]))
}

fn age(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}
