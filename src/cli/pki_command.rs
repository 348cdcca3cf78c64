//! `portcullis pki`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::pki::{KeyType, Kind, Pki, PkiError, Request, parse_subject};

/// A century; more is beyond what the dates of some readers can hold.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

#[derive(Debug, Subcommand)]
pub(super) enum PkiCommand {
    /// Make an authority: `ca.crt` and `ca.key` in a directory
    Init {
        #[command(flatten)]
        directory: DirectoryArgument,
        #[arg(long, default_value = "Portcullis Trial CA")]
        common_name: String,
        #[arg(long, default_value_t = 3650, value_parser = days())]
        days: u32,
        #[arg(long, value_enum, default_value = "p256")]
        key: KeyType,
    },
    /// Issue a certificate: `NAME.crt` and `NAME.key`
    Issue(IssueArguments),
    /// Note that a certificate is revoked; `pki crl` makes it known
    Revoke {
        #[command(flatten)]
        directory: DirectoryArgument,
        /// The certificate
        certificate: PathBuf,
    },
    /// Write the revocation list, `ca.crl`
    Crl {
        #[command(flatten)]
        directory: DirectoryArgument,
        /// How long it may be believed
        #[arg(long, default_value_t = 30, value_parser = days())]
        days: u32,
    },
}

#[derive(Debug, Args)]
pub(super) struct DirectoryArgument {
    /// The authority's directory
    #[arg(short, long, default_value = "pki")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct IssueArguments {
    #[command(flatten)]
    directory: DirectoryArgument,
    /// What the files are called
    name: String,
    #[arg(long, value_enum, default_value = "client")]
    kind: Kind,
    /// For example `CN=device-1,OU=sensors` [default: CN=NAME]
    #[arg(long)]
    subject: Option<String>,
    #[arg(long)]
    dns: Vec<String>,
    #[arg(long)]
    email: Vec<String>,
    #[arg(long)]
    uri: Vec<String>,
    #[arg(long)]
    ip: Vec<IpAddr>,
    #[arg(long, default_value_t = 365, value_parser = days())]
    days: u32,
    #[arg(long, value_enum, default_value = "p256")]
    key: KeyType,
}

pub(super) fn run(command: PkiCommand) -> Result<(), String> {
    let done = execute(command).map_err(|error| error.to_string())?;
    super::print(&done)
}

/// What was made.
fn execute(command: PkiCommand) -> Result<String, PkiError> {
    Ok(match command {
        PkiCommand::Init { directory, common_name, days, key } => {
            Pki::init(&directory.directory, &common_name, days, key)?;
            directory.directory.join("ca.crt").display().to_string()
        }
        PkiCommand::Issue(arguments) => issue(arguments)?.display().to_string(),
        PkiCommand::Revoke { directory, certificate } => {
            let serial = Pki::open(&directory.directory)?.revoke(&certificate)?;
            format!("serial {serial} is revoked; `portcullis pki crl` writes the list")
        }
        PkiCommand::Crl { directory, days } => {
            Pki::open(&directory.directory)?.crl(days)?.display().to_string()
        }
    })
}

fn issue(arguments: IssueArguments) -> Result<PathBuf, PkiError> {
    let subject = arguments.subject.unwrap_or_else(|| format!("CN={}", arguments.name));
    let request = Request {
        subject: parse_subject(&subject)?,
        name: arguments.name,
        kind: arguments.kind,
        dns: arguments.dns,
        email: arguments.email,
        uri: arguments.uri,
        ip: arguments.ip,
        days: arguments.days,
        key_type: arguments.key,
    };
    Pki::open(&arguments.directory.directory)?.issue(&request)
}
