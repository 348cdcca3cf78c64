//! The log: written by a thread of its own, so that a slow reader of stdout never holds a request up.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use log::{Level, LevelFilter};
use serde_json::{Map, Value};

use super::metrics::Metrics;
use super::record::{ConnectionRecord, RequestRecord};
use crate::config::{LogFormat, LoggingConfig};

/// Records that wait to be written; beyond that they are dropped and counted.
const QUEUE: usize = 16 * 1024;

enum Entry {
    Connection(Box<ConnectionRecord>),
    Request(Box<RequestRecord>),
    Message { time: SystemTime, level: Level, target: String, text: String },
    Flush(SyncSender<()>),
}

/// The sending end.
#[derive(Clone)]
pub struct LogWriter {
    queue: SyncSender<Entry>,
    metrics: Arc<Metrics>,
}

impl LogWriter {
    /// Starts the writer, and makes it the process's `log` logger.
    pub fn start(logging: &LoggingConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (queue, entries) = sync_channel(QUEUE);
        let format = logging.format;
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&entries, format, std::io::stdout()))?;
        let writer = Self { queue, metrics };
        // Pingora reports what our own records say better; its warnings are shown to those who debug.
        let diagnostics = Diagnostics { writer: writer.clone(), level: logging.level };
        if log::set_boxed_logger(Box::new(diagnostics)).is_ok() {
            log::set_max_level(logging.level);
        }
        Ok(writer)
    }

    pub(super) fn connection(&self, record: ConnectionRecord) {
        self.send(Entry::Connection(Box::new(record)));
    }

    pub(super) fn request(&self, record: RequestRecord) {
        self.send(Entry::Request(Box::new(record)));
    }

    pub(super) fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }

    fn send(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.metrics.log_record_dropped();
        }
    }
}

/// What the program itself has to say, through the `log` crate.
struct Diagnostics {
    writer: LogWriter,
    level: LevelFilter,
}

impl log::Log for Diagnostics {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        let limit = if metadata.target().starts_with("pingora") && self.level < LevelFilter::Debug {
            LevelFilter::Error
        } else {
            self.level
        };
        metadata.level() <= limit
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            self.writer.send(Entry::Message {
                time: SystemTime::now(),
                level: record.level(),
                target: record.target().to_owned(),
                text: record.args().to_string(),
            });
        }
    }

    fn flush(&self) {
        self.writer.flush(Duration::from_secs(1));
    }
}

/// Writes in batches: one system call for whatever had gathered while the last one was under way.
fn write_all(entries: &Receiver<Entry>, format: LogFormat, mut output: impl Write) {
    let mut batch = Vec::with_capacity(64 * 1024);
    while let Ok(first) = entries.recv() {
        let mut next = Some(first);
        let mut waiting = Vec::new();
        while let Some(entry) = next.take() {
            match entry {
                Entry::Flush(done) => waiting.push(done),
                entry => line(&entry, format, &mut batch),
            }
            if batch.len() > 60 * 1024 {
                break;
            }
            next = entries.try_recv().ok();
        }
        // Nobody reads: there is no better place to say so.
        let _ = output.write_all(&batch).and_then(|()| output.flush());
        batch.clear();
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

fn line(entry: &Entry, format: LogFormat, batch: &mut Vec<u8>) {
    let (time, kind, level, fields) = match entry {
        Entry::Connection(record) => {
            let level = if record.outcome.is_some() { Level::Warn } else { Level::Info };
            (record.time, "connection", level, record.fields())
        }
        Entry::Request(record) => (record.time, "request", Level::Info, record.fields()),
        Entry::Message { time, level, target, text } => {
            let mut fields = Map::new();
            fields.insert("target".into(), target.as_str().into());
            fields.insert("message".into(), text.as_str().into());
            (*time, "message", *level, fields)
        }
        Entry::Flush(_) => return,
    };
    match format {
        LogFormat::Json => json_line(time, kind, level, fields, batch),
        LogFormat::Text => text_line(time, kind, level, &fields, batch),
    }
    batch.push(b'\n');
}

/// RFC 3339, UTC, milliseconds.
fn timestamp(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "?".to_owned(), |time| format!("{time:.3}"))
}

fn json_line(time: SystemTime, kind: &str, level: Level, fields: Map<String, Value>, batch: &mut Vec<u8>) {
    let mut all = Map::new();
    all.insert("time".into(), timestamp(time).into());
    all.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    all.insert("kind".into(), kind.into());
    all.extend(fields);
    // A map of strings and numbers always serialises.
    let _ = serde_json::to_writer(batch, &all);
}

/// `time level kind key=value …`; what could break a line out of its place is escaped.
fn text_line(time: SystemTime, kind: &str, level: Level, fields: &Map<String, Value>, batch: &mut Vec<u8>) {
    let _ = write!(batch, "{} {:5} {kind}", timestamp(time), level.as_str());
    for (name, value) in fields {
        let _ = match value {
            Value::String(text) if kind == "message" && name == "message" => {
                write!(batch, " {}", escaped(text))
            }
            Value::String(text) if is_bare(text) => write!(batch, " {name}={text}"),
            Value::String(text) => write!(batch, " {name}={}", Value::from(escaped(text))),
            value => write!(batch, " {name}={value}"),
        };
    }
}

fn is_bare(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'=')
}

fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape = c.is_control().then(|| c.escape_default());
            let plain = escape.is_none().then_some(c);
            escape.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Entry {
        Entry::Message {
            time: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            target: "test".into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let mut batch = Vec::new();
            line(&message("a\nb\r\u{1b}[31m\u{0}\"c"), format, &mut batch);
            let text = String::from_utf8(batch).unwrap();
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text:?}");
        }
    }

    #[test]
    fn json_lines_parse_and_carry_an_rfc_3339_time() {
        let mut batch = Vec::new();
        line(&message("hello"), LogFormat::Json, &mut batch);
        let value: Value = serde_json::from_slice(&batch).unwrap();
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(value["message"], "hello");
    }

    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting() {
        let (queue, entries) = sync_channel(2);
        let metrics = Arc::new(Metrics::new());
        let writer = LogWriter { queue, metrics: metrics.clone() };
        for _ in 0..5 {
            writer.send(message("x"));
        }
        assert!(metrics.render().contains("portcullis_log_records_dropped_total 3"));
        drop(entries);
    }
}
