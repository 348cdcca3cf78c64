//! `portcullis connections`, `kick` and the other commands for a gateway that runs.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Subcommand};
use serde_json::{Value, json};

use super::admin_client::{AdminArguments, AdminClient, Pairs};
use super::selector_arguments::SelectorArguments;
use super::table::{Table, shown};
use super::trust_command::{self, TrustArguments};
use crate::admin::Selector;
use crate::config::Span;

/// Of one request; the gateway gives no more.
const PAGE: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum OperateCommand {
    /// Show how a running gateway fares
    Status(AdminArguments),
    /// Have a running gateway read everything anew, or hear why it keeps what it has
    Reload(AdminArguments),
    /// Say how many clients depend on each trust anchor, whether an old one can go, and who expires next
    ///
    /// Counted are clients that were seen lately (`census.window`) and have not come with a later certificate since.
    #[command(after_help = "Examples:\n  \
        portcullis trust\n  \
        portcullis trust --expiring 100\n  \
        portcullis trust --json | jq -r '.expiring_next[].subject'")]
    Trust(TrustArguments),
    /// List the open connections
    #[command(after_help = "Examples:\n  \
        portcullis connections\n  \
        portcullis connections --subject OU=sensors --limit 20\n  \
        portcullis connections --address 192.0.2.0/24 --json | jq -r '.connections[].client.subject'")]
    Connections(ConnectionsArguments),
    /// End the open connections of a client, which may come again
    #[command(after_help = "Examples:\n  \
        portcullis kick --subject CN=device-17 --reason 'hangs'\n  \
        portcullis kick --cert device-17.crt --grace 10s\n  \
        portcullis kick --connection 00000000000000ab")]
    Kick(KickArguments),
}

#[derive(Debug, Args)]
pub(super) struct ConnectionsArguments {
    #[command(flatten)]
    selector: SelectorArguments,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    admin: AdminArguments,
}

#[derive(Debug, Args)]
pub(super) struct KickArguments {
    #[command(flatten)]
    selector: SelectorArguments,
    /// How long requests under way may take to finish, such as `10s` [default: they are cut off]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<String>,
    /// For the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) fn run(command: OperateCommand) -> Result<(), String> {
    super::print(&match command {
        OperateCommand::Status(admin) => status(&admin)?,
        OperateCommand::Reload(admin) => {
            AdminClient::find(&admin)?.post_for_text("/reload", &Pairs::new())?.trim_end().to_owned()
        }
        OperateCommand::Trust(arguments) => trust_command::run(&arguments)?,
        OperateCommand::Connections(arguments) => connections(arguments)?,
        OperateCommand::Kick(arguments) => kick(arguments)?,
    })
}

fn status(admin: &AdminArguments) -> Result<String, String> {
    let status = AdminClient::find(admin)?.get("/status", &Pairs::new())?;
    if admin.json {
        return Ok(format!("{status:#}"));
    }
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
    Ok(format!("{text}\n{listeners}\n\n{endpoints}"))
}

fn connections(arguments: ConnectionsArguments) -> Result<String, String> {
    let pairs = arguments.selector.selector()?.pairs();
    let client = AdminClient::find(&arguments.admin)?;
    let limit = arguments.limit as usize;
    let (mut found, mut next, mut open) = (Vec::new(), Value::Null, Value::Null);
    while found.len() < limit {
        let mut pairs = pairs.clone();
        pairs.push(("limit", (limit - found.len()).min(PAGE).to_string()));
        pairs.extend(next.as_str().map(|after| ("after", after.to_owned())));
        let mut page = client.get("/connections", &pairs)?;
        (next, open) = (page["next"].take(), page["open"].take());
        if let Value::Array(more) = page["connections"].take() {
            found.extend(more);
        }
        if next.is_null() {
            break;
        }
    }
    if arguments.admin.json {
        return Ok(format!("{:#}", json!({ "connections": found, "next": next, "open": open })));
    }
    let headings = ["ID", "LISTENER", "PEER", "SINCE", "TLS", "PROTOCOL", "REQUESTS", "TRUST", "SUBJECT"];
    let mut table = Table::new(&headings);
    for connection in &found {
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
    let more = if next.is_null() { "" } else { ", and there are more (hint: --limit)" };
    Ok(format!("{table}\n\n{} shown of {} open{more}", found.len(), word(&open)))
}

fn kick(arguments: KickArguments) -> Result<String, String> {
    let selector = arguments.selector.selector()?;
    demand_a_client(&selector);
    let mut pairs = selector.pairs();
    pairs.extend(arguments.grace.map(|grace| ("grace", grace)));
    pairs.extend(arguments.reason.map(|reason| ("reason", reason)));
    let done = AdminClient::find(&arguments.admin)?.post("/kick", &pairs)?;
    if arguments.admin.json {
        return Ok(format!("{done:#}"));
    }
    Ok(ended(&done))
}

fn ended(done: &Value) -> String {
    match done["ended"].as_u64() {
        Some(0) => "no connection was open".to_owned(),
        Some(1) => "1 connection ended".to_owned(),
        _ => format!("{} connections ended", word(&done["ended"])),
    }
}

/// Wrong usage, and told as such.
fn demand_a_client(selector: &Selector) {
    if let Err(error) = selector.names_a_client() {
        let hint =
            "--fingerprint, --key-fingerprint, --cert, --serial with --issuer, --subject or --connection";
        let text = format!("{error}\n  here: {hint}");
        super::Arguments::command().error(ErrorKind::MissingRequiredArgument, text).exit();
    }
}

fn duration(text: &str) -> Result<String, String> {
    text.parse::<Span>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value as people read it.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => shown(text),
        other => other.to_string(),
    }
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
