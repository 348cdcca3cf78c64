//! The command line: what can be asked for, and the exit code of each answer.
//!
//! 0: done. 1: could not start, or the configuration cannot be used. 2: wrong usage.
//! 101: a fault of the program ended it (see `panics`).

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{self, Config};
use crate::{demo, explain, server, tls};

mod admin_client;
mod operate_command;
mod pki_command;
mod selector_arguments;
mod table;
mod trust_command;

/// A reverse proxy for services that only known machines and people may reach.
///
/// Portcullis demands a client certificate, decides who the client is, sends each request to the upstream pool
/// that this identity is entitled to, and tells the origin who is calling.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, propagate_version = true, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, in the foreground
    ///
    /// SIGHUP reads everything anew (or keeps what is in force and says why); SIGTERM drains and stops; SIGINT stops
    /// at once; SIGQUIT hands the listening sockets to a process started with --upgrade.
    Run(RunArguments),
    /// Read everything that `run` would read, and print every problem
    Check(ConfigArgument),
    /// Say what would become of a request, and why
    ///
    /// Runs the code of the gateway itself on a certificate file: the verdict on the chain, every route with the
    /// reason why it does or does not match, the pool, and the headers the origin would get.
    Explain(ExplainArguments),
    #[command(flatten)]
    Operate(operate_command::OperateCommand),
    /// A small certificate authority for trials, tests and closed fleets
    #[command(subcommand)]
    Pki(pki_command::PkiCommand),
    /// A certificate authority, two origins and a gateway on loopback: everything in one command
    Demo(DemoArguments),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the version and what it was built with
    Version,
}

#[derive(Debug, Args)]
struct ConfigArgument {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.yaml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Take the listening sockets over from a running process, which is then sent SIGQUIT
    #[arg(long)]
    upgrade: bool,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The client's certificate, and what it sends along, as PEM, leaf first; without it: a client without one
    #[arg(long, value_name = "PEM")]
    cert: Option<PathBuf>,
    /// The listener the request comes in on [default: the first]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Where the client connects from: whether `allow_from` and `deny_from` let it in [default: not asked]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// A header of the request, as `Name: value`
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Machine-readable output
    #[arg(long)]
    json: bool,
    /// GET, POST, ...
    method: String,
    /// For example https://localhost/readings
    url: String,
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Where the demo's certificates and configuration are written
    #[arg(long, value_name = "DIR", default_value = "demo")]
    directory: PathBuf,
    /// The port the gateway listens on
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Write the directory and leave, without serving
    #[arg(long)]
    prepare_only: bool,
}

/// Does what was asked for.
pub fn run(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.command {
        Command::Run(run) => server::run(&run.config.config, run.upgrade).map_err(|error| error.to_string()),
        Command::Check(argument) => check(&argument),
        Command::Explain(arguments) => explain(arguments),
        Command::Operate(command) => operate_command::run(command),
        Command::Pki(command) => pki_command::run(command),
        Command::Demo(arguments) => demo::run(&arguments.directory, arguments.port, arguments.prepare_only)
            .map_err(|error| error.to_string()),
        Command::Schema => print(&format!("{:#}", config::schema())),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "portcullis", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Version => print(&version()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let message = if message.starts_with("error: ") { message } else { format!("error: {message}") };
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn version() -> String {
    format!("portcullis {}\nTLS library: {}\nPingora: 0.9.1", env!("CARGO_PKG_VERSION"), tls::library())
}

fn check(argument: &ConfigArgument) -> Result<(), String> {
    let config = Config::read(&argument.config).map_err(|errors| errors.to_string())?;
    let runtime = server::load(config).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for warning in runtime.warnings() {
        text += &format!("warning: {warning}\n");
    }
    text += &format!(
        "{} is good: {} listeners, {} trust domains, {} pools, {} routes",
        argument.config.display(),
        runtime.listeners.len(),
        runtime.trust.len(),
        runtime.pools.len(),
        runtime.routes.routes().len(),
    );
    print(&text)
}

fn explain(arguments: ExplainArguments) -> Result<(), String> {
    let config = Config::read(&arguments.config.config).map_err(|errors| errors.to_string())?;
    let runtime = server::load(config).map_err(|error| error.to_string())?;
    let question = explain::Question {
        certificate: arguments.cert,
        listener: arguments.listener,
        from: arguments.from,
        headers: arguments.headers,
        method: arguments.method,
        url: arguments.url,
    };
    let answer = explain::explain(&runtime, &question, tls::now()).map_err(|error| error.to_string())?;
    print(&if arguments.json { format!("{:#}", answer.to_json()) } else { answer.to_string() })
}

/// A reader that goes away (`| head`) is no error of ours.
fn print(text: &str) -> Result<(), String> {
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}
