//! `portcullis trust`: how many clients depend on which anchor, and who expires next.

use clap::Args;
use serde_json::Value;

use super::admin_client::{AdminArguments, AdminClient, Pairs};
use super::table::{Table, items, word};

#[derive(Debug, Args)]
pub(super) struct TrustArguments {
    /// Name so many of the clients whose certificates expire next; at most 100
    #[arg(long, value_name = "N", default_value_t = 10)]
    expiring: usize,
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) fn run(arguments: &TrustArguments) -> Result<String, String> {
    let census = AdminClient::find(&arguments.admin)?.get("/census", &Pairs::new())?;
    if arguments.admin.json {
        return Ok(format!("{census:#}"));
    }
    let mut parts = vec![anchors(&census).to_string(), verdicts(&census).join("\n")];
    let next: Vec<&Value> = items(&census["expiring_next"]).iter().take(arguments.expiring).collect();
    if !next.is_empty() {
        parts.push(expiring(&next).to_string());
    }
    parts.retain(|part| !part.is_empty());
    Ok(parts.join("\n\n"))
}

fn anchors(census: &Value) -> Table {
    let headings = [
        "TRUST",
        "ANCHOR",
        "FINGERPRINT",
        "EXPIRES",
        "IN FORCE",
        "CLIENTS",
        "EXPIRED",
        "IN 7D",
        "IN 30D",
        "IN 90D",
        "RENEWED",
        "CONNECTIONS",
        "LAST SEEN",
    ];
    let mut table = Table::new(&headings);
    for domain in items(&census["trust"]) {
        for anchor in items(&domain["anchors"]) {
            let within = &anchor["expiring"];
            table.add(vec![
                word(&domain["domain"]),
                word(&anchor["subject"]),
                beginning(&anchor["fingerprint"]),
                day(&anchor["not_after"]),
                if anchor["in_force"] == true { "yes" } else { "NO" }.to_owned(),
                word(&anchor["certificates"]),
                word(&anchor["expired"]),
                word(&within["7d"]),
                word(&within["30d"]),
                word(&within["90d"]),
                word(&anchor["superseded"]),
                word(&anchor["connections"]),
                word(&anchor["last_seen"]),
            ]);
        }
    }
    table
}

/// What a rotation waits for: of each domain with more than one anchor, which of them nobody needs.
fn verdicts(census: &Value) -> Vec<String> {
    let Some(since) = census["since"].as_str() else {
        return vec!["nobody was seen yet: nothing can be said of who depends on what".to_owned()];
    };
    let since = since.split('T').next().unwrap_or(since);
    let several = items(&census["trust"]).iter().filter(|domain| items(&domain["anchors"]).len() > 1);
    let verdict = |domain: &Value, anchor: &Value| {
        let (clients, open) = (anchor["certificates"].as_u64(), anchor["connections"].as_u64());
        let (clients, open) = (clients.unwrap_or_default(), open.unwrap_or_default());
        let name = format!(
            "{}: `{}` ({})",
            word(&domain["domain"]),
            word(&anchor["subject"]),
            beginning(&anchor["fingerprint"])
        );
        let (needed, clients) = ((clients, open) != (0, 0), count(clients, "client"));
        match (needed, anchor["in_force"] == true) {
            (false, true) => format!("{name} can go: nobody seen since {since} depends on it"),
            (true, true) => format!("{name} is needed: {clients}, {}", count(open, "open connection")),
            (_, false) => format!("{name} is gone: {clients} seen since {since} without another certificate"),
        }
    };
    several
        .flat_map(|domain| items(&domain["anchors"]).iter().map(move |anchor| verdict(domain, anchor)))
        .collect()
}

fn expiring(next: &[&Value]) -> Table {
    let mut table = Table::new(&["EXPIRES", "LAST SEEN", "TRUST", "FINGERPRINT", "SUBJECT"]);
    for client in next {
        let whole = &client["fingerprint"];
        let fingerprint =
            if whole.is_null() { format!("{}…", word(&client["fingerprint_begins"])) } else { word(whole) };
        table.add(vec![
            word(&client["not_after"]),
            word(&client["last_seen"]),
            word(&client["trust_domain"]),
            fingerprint,
            word(&client["subject"]),
        ]);
    }
    table
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// As much of a fingerprint as the metrics show.
fn beginning(fingerprint: &Value) -> String {
    word(fingerprint).chars().take(16).collect()
}

fn day(time: &Value) -> String {
    word(time).split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_anchor_that_nobody_needs_can_go_and_one_that_is_gone_tells_who_was_left_behind() {
        let anchor = |subject: &str, clients: u64, open: u64, in_force: bool| {
            json!({ "subject": subject, "fingerprint": "0123456789abcdef01", "certificates": clients,
                    "connections": open, "in_force": in_force })
        };
        let census = |anchors: Vec<Value>| json!({ "since": "2026-01-02T03:04:05Z", "trust": [{ "domain": "fleet", "anchors": anchors }] });
        let three = census(vec![
            anchor("CN=New", 5, 2, true),
            anchor("CN=Old", 0, 0, true),
            anchor("CN=Open", 0, 1, true),
            anchor("CN=Gone", 3, 0, false),
        ]);
        assert_eq!(
            verdicts(&three),
            [
                "fleet: `CN=New` (0123456789abcdef) is needed: 5 clients, 2 open connections",
                "fleet: `CN=Old` (0123456789abcdef) can go: nobody seen since 2026-01-02 depends on it",
                "fleet: `CN=Open` (0123456789abcdef) is needed: 0 clients, 1 open connection",
                "fleet: `CN=Gone` (0123456789abcdef) is gone: 3 clients seen since 2026-01-02 without another certificate",
            ]
        );
        // There is no other to go to.
        assert!(verdicts(&census(vec![anchor("CN=Only", 0, 0, true)])).is_empty());
        assert!(verdicts(&json!({ "since": null, "trust": [] }))[0].starts_with("nobody was seen yet"));
    }
}
