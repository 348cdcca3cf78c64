//! `portcullis connections`, `kick` and the other commands for a gateway that runs.

mod answers;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Subcommand};
use serde_json::{Value, json};

use super::admin_client::{AdminArguments, AdminClient, Pairs};
use super::selector_arguments::SelectorArguments;
use super::trust_command::{self, TrustArguments};
use crate::admin::BadParameter;
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
    /// Keep a client out from now on, and end its open connections
    ///
    /// The gateway keeps it in its state directory, so that it is in force after a restart as well.
    #[command(after_help = "Examples:\n  \
        portcullis block --subject CN=device-17 --reason 'stolen, ticket 4711'\n  \
        portcullis block --serial 5A --issuer 'CN=Fleet CA' --for 7d\n  \
        portcullis block --cert device-17.crt --until 2027-01-31T12:00:00Z")]
    Block(BlockArguments),
    /// Let a client in again that was blocked
    #[command(
        after_help = "It is named as when it was blocked: `portcullis blocked` shows how.\n\nExamples:\n  \
        portcullis unblock --subject CN=device-17\n  \
        portcullis unblock --serial 5A --issuer 'CN=Fleet CA'"
    )]
    Unblock(UnblockArguments),
    /// List who is blocked
    Blocked(AdminArguments),
    /// Show all that is known of a client: its connections, its certificates, and whether it would be let in
    #[command(
        after_help = "With --cert the answer does not depend on whether the client is connected.\n\nExamples:\n  \
        portcullis who --subject CN=device-17\n  \
        portcullis who --cert device-17.crt\n  \
        portcullis who --fingerprint 9b0c… --json"
    )]
    Who(WhoArguments),
}

#[derive(Debug, Args)]
pub(super) struct ConnectionsArguments {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    admin: AdminArguments,
    #[command(flatten)]
    selector: SelectorArguments,
}

#[derive(Debug, Args)]
pub(super) struct KickArguments {
    /// How long requests under way may take to finish, such as `10s` [default: they are cut off]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<String>,
    /// For the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: AdminArguments,
    #[command(flatten)]
    selector: SelectorArguments,
}

#[derive(Debug, Args)]
pub(super) struct BlockArguments {
    /// How long, such as `7d` [default: until it is unblocked]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, conflicts_with = "until")]
    span: Option<String>,
    /// Until when, such as `2027-01-31T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// For the log, and for whoever asks why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: AdminArguments,
    #[command(flatten)]
    selector: SelectorArguments,
}

#[derive(Debug, Args)]
pub(super) struct UnblockArguments {
    /// For the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: AdminArguments,
    #[command(flatten)]
    selector: SelectorArguments,
}

#[derive(Debug, Args)]
pub(super) struct WhoArguments {
    #[command(flatten)]
    admin: AdminArguments,
    #[command(flatten)]
    selector: SelectorArguments,
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
        OperateCommand::Block(arguments) => block(arguments)?,
        OperateCommand::Unblock(arguments) => unblock(arguments)?,
        OperateCommand::Blocked(admin) => blocked(&admin)?,
        OperateCommand::Who(arguments) => who(arguments)?,
    })
}

fn status(admin: &AdminArguments) -> Result<String, String> {
    let status = AdminClient::find(admin)?.get("/status", &Pairs::new())?;
    if admin.json {
        return Ok(format!("{status:#}"));
    }
    Ok(answers::status(&status))
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
    Ok(answers::connections(&found, &open, &next))
}

fn kick(arguments: KickArguments) -> Result<String, String> {
    let selector = arguments.selector.selector()?;
    demand(selector.names_a_client());
    let mut pairs = selector.pairs();
    pairs.extend(arguments.grace.map(|grace| ("grace", grace)));
    pairs.extend(arguments.reason.map(|reason| ("reason", reason)));
    let done = AdminClient::find(&arguments.admin)?.post("/kick", &pairs)?;
    if arguments.admin.json {
        return Ok(format!("{done:#}"));
    }
    Ok(answers::ended(&done))
}

fn block(arguments: BlockArguments) -> Result<String, String> {
    let selector = arguments.selector.selector()?;
    demand(selector.denied().map(drop));
    let mut pairs = selector.pairs();
    pairs.extend(arguments.span.map(|span| ("for", span)));
    pairs.extend(arguments.until.map(|until| ("until", until)));
    pairs.extend(arguments.reason.map(|reason| ("reason", reason)));
    let done = AdminClient::find(&arguments.admin)?.post("/block", &pairs)?;
    if arguments.admin.json {
        return Ok(format!("{done:#}"));
    }
    Ok(answers::block(&done))
}

fn unblock(arguments: UnblockArguments) -> Result<String, String> {
    let selector = arguments.selector.selector()?;
    demand(selector.denied().map(drop));
    let mut pairs = selector.pairs();
    pairs.extend(arguments.reason.map(|reason| ("reason", reason)));
    let done = AdminClient::find(&arguments.admin)?.post("/unblock", &pairs)?;
    if arguments.admin.json {
        return Ok(format!("{done:#}"));
    }
    Ok(answers::unblock(&done))
}

fn blocked(admin: &AdminArguments) -> Result<String, String> {
    let all = AdminClient::find(admin)?.get("/blocked", &Pairs::new())?;
    if let Some(error) = all["error"].as_str() {
        return Err(error.to_owned());
    }
    if admin.json {
        return Ok(format!("{all:#}"));
    }
    Ok(answers::blocked(&all))
}

fn who(arguments: WhoArguments) -> Result<String, String> {
    let certificate = arguments.selector.certificate()?;
    let selector = arguments.selector.selector()?;
    demand(selector.names_a_client());
    let mut pairs = selector.pairs();
    pairs.extend(certificate.map(|pem| ("certificate", pem)));
    let found = AdminClient::find(&arguments.admin)?.get("/who", &pairs)?;
    if arguments.admin.json {
        return Ok(format!("{found:#}"));
    }
    Ok(answers::who(&found))
}

/// Wrong usage, and told as such.
fn demand(whom: Result<(), BadParameter>) {
    if let Err(error) = whom {
        let hint =
            "--fingerprint, --key-fingerprint, --cert, --serial with --issuer, --subject or --connection";
        let text = format!("{error}\n  here: {hint}");
        super::Arguments::command().error(ErrorKind::MissingRequiredArgument, text).exit();
    }
}

fn duration(text: &str) -> Result<String, String> {
    text.parse::<Span>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<String, String> {
    let time = text.parse::<jiff::Timestamp>().map(|_| text.to_owned());
    time.map_err(|_| format!("`{text}` is not a moment (expected: RFC 3339, such as `2027-01-31T12:00:00Z`)"))
}
