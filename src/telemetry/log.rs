//! The log: written by a thread of its own, so that a slow reader of stdout never holds a request up.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, LevelFilter};

use super::action::ActionRecord;
use super::line::Line;
use super::metrics::Metrics;
use super::panicked;
use super::record::{ConnectionRecord, EndedRecord, RequestRecord, bound};
use super::turned_away::TurnedAwayRecord;
use crate::config::{LogFormat, LoggingConfig};
use crate::panics;

/// Records that wait to be written; beyond that they are dropped and counted.
const QUEUE: usize = 16 * 1024;

/// How long the writer lets records gather. While it sleeps, a thread that adds one need not wake it, which would
/// cost each request more than the record itself.
const GATHER: Duration = Duration::from_millis(2);

/// Bytes after which a batch is written, however many records wait.
const BATCH: usize = 60 * 1024;

/// How often a flush looks whether the queue has room again.
const FULL: Duration = Duration::from_millis(1);

/// How often somebody who can wait looks.
const PATIENCE: u32 = 100;

enum Entry {
    Connection(Box<ConnectionRecord>),
    Request(Box<RequestRecord>),
    Ended(Box<EndedRecord>),
    Action(Box<ActionRecord>),
    TurnedAway(Box<TurnedAwayRecord>),
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
        let drain =
            Drain { format: logging.format, metrics: metrics.clone(), told: 0, batch: Vec::new(), lines: 0 };
        panics::thread("log", move || drain.run(&entries, std::io::stdout()))?;
        panicked::count(metrics.clone());
        let writer = Self { queue, metrics };
        // Pingora reports what our own records say better; its warnings are shown to those who debug.
        let diagnostics = Diagnostics { writer: writer.clone() };
        if log::set_boxed_logger(Box::new(diagnostics)).is_ok() {
            log::set_max_level(logging.level);
        }
        Ok(writer)
    }

    pub(super) fn connection(&self, mut record: ConnectionRecord) {
        record.bound();
        self.send(Entry::Connection(Box::new(record)));
    }

    pub(super) fn request(&self, mut record: RequestRecord) {
        record.bound();
        self.send(Entry::Request(Box::new(record)));
    }

    pub(super) fn ended(&self, record: EndedRecord) {
        self.send_patiently(Entry::Ended(Box::new(record)));
    }

    pub(super) fn action(&self, record: ActionRecord) {
        self.send_patiently(Entry::Action(Box::new(record)));
    }

    pub(super) fn turned_away(&self, record: TurnedAwayRecord) {
        self.send(Entry::TurnedAway(Box::new(record)));
    }

    /// Waits a moment for room: many may end at once, and those who end them are no serving threads.
    fn send_patiently(&self, mut entry: Entry) {
        for _ in 0..PATIENCE {
            match self.queue.try_send(entry) {
                Err(TrySendError::Full(refused)) => entry = refused,
                _ => return,
            }
            thread::sleep(FULL);
        }
        self.send(entry);
    }

    /// Waits until what was sent so far is written, at most `limit`: also where the queue is full.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (done, wait) = sync_channel(1);
        let mut entry = Entry::Flush(done);
        while let Err(TrySendError::Full(refused)) = self.queue.try_send(entry) {
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(FULL);
            entry = refused;
        }
        // Either way there is nothing left to do: it is written, the time is up, or the writer is gone.
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    fn send(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.metrics.log_records_dropped(1);
        }
    }
}

/// What the program itself has to say, through the `log` crate.
struct Diagnostics {
    writer: LogWriter,
}

/// Whether those who read the log at `level` hear this.
fn is_heard(level: LevelFilter, metadata: &log::Metadata) -> bool {
    let limit = if metadata.target().starts_with("pingora") && level < LevelFilter::Debug {
        level.min(LevelFilter::Error)
    } else {
        level
    };
    metadata.level() <= limit
}

impl log::Log for Diagnostics {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        // A reload may have changed it.
        is_heard(log::max_level(), metadata)
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            let mut text = record.args().to_string();
            // Pingora's messages quote what clients sent; our own may list every problem of a configuration.
            if record.target().starts_with("pingora") {
                bound(&mut text);
            }
            self.writer.send(Entry::Message {
                time: SystemTime::now(),
                level: record.level(),
                target: record.target().to_owned(),
                text,
            });
        }
    }

    fn flush(&self) {
        self.writer.flush(Duration::from_secs(1));
    }
}

/// The receiving end. Writes in batches: one system call for whatever had gathered.
struct Drain {
    format: LogFormat,
    metrics: Arc<Metrics>,
    /// Dropped records that a line has told of already.
    told: u64,
    batch: Vec<u8>,
    /// Records in `batch`.
    lines: u64,
}

impl Drain {
    fn run(mut self, entries: &Receiver<Entry>, mut output: impl Write) {
        let mut emptied = true;
        while let Ok(first) = entries.recv() {
            if emptied && !matches!(first, Entry::Flush(_)) {
                thread::sleep(GATHER);
            }
            let mut next = Some(first);
            let mut waiting = Vec::new();
            while let Some(entry) = next.take() {
                match entry {
                    Entry::Flush(done) => waiting.push(done),
                    entry => self.add(&entry),
                }
                if self.batch.len() > BATCH {
                    break;
                }
                next = entries.try_recv().ok();
            }
            emptied = self.batch.len() <= BATCH;
            self.tell_of_dropped();
            self.write(&mut output);
            for done in waiting {
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn add(&mut self, entry: &Entry) {
        write_line(entry, self.format, &mut self.batch);
        self.lines += 1;
    }

    /// Whoever reads the log must know that it has a hole.
    fn tell_of_dropped(&mut self) {
        let dropped = self.metrics.dropped();
        if dropped > self.told && !self.batch.is_empty() {
            let text =
                format!("{} log records were dropped: the log is read too slowly", dropped - self.told);
            let entry = Entry::Message {
                time: SystemTime::now(),
                level: Level::Warn,
                target: module_path!().into(),
                text,
            };
            write_line(&entry, self.format, &mut self.batch);
            self.told = dropped;
        }
    }

    fn write(&mut self, output: &mut impl Write) {
        if output.write_all(&self.batch).and_then(|()| output.flush()).is_err() {
            // Nobody reads; there is no better place than the metric to say so.
            self.metrics.log_records_dropped(self.lines);
        }
        self.batch.clear();
        self.lines = 0;
    }
}

fn write_line(entry: &Entry, format: LogFormat, batch: &mut Vec<u8>) {
    let line = match entry {
        Entry::Connection(record) => {
            let mut line = Line::begin(format, record.time, record.level(), "connection", batch);
            record.write(&mut line);
            line
        }
        Entry::Request(record) => {
            let mut line = Line::begin(format, record.time, Level::Info, "request", batch);
            record.write(&mut line);
            line
        }
        Entry::Ended(record) => {
            let mut line = Line::begin(format, record.time, Level::Warn, "connection_ended", batch);
            record.write(&mut line);
            line
        }
        Entry::Action(record) => {
            let mut line = Line::begin(format, record.time, record.level(), "admin_action", batch);
            record.write(&mut line);
            line
        }
        Entry::TurnedAway(record) => {
            let mut line = Line::begin(format, record.time, Level::Warn, "turned_away", batch);
            record.write(&mut line);
            line
        }
        Entry::Message { time, level, target, text } => {
            let mut line = Line::begin(format, *time, *level, "message", batch);
            line.text("target", target);
            line.sentence(text);
            line
        }
        Entry::Flush(_) => return,
    };
    line.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    impl LogWriter {
        pub(in crate::telemetry) fn to_nobody(metrics: Arc<Metrics>) -> Self {
            Self { queue: sync_channel(1).0, metrics }
        }
    }

    fn message(text: &str) -> Entry {
        Entry::Message {
            time: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            target: "test".into(),
            text: text.into(),
        }
    }

    fn drain(metrics: &Arc<Metrics>, format: LogFormat) -> Drain {
        Drain { format, metrics: metrics.clone(), told: 0, batch: Vec::new(), lines: 0 }
    }

    fn lines(format: LogFormat, messages: &[&str]) -> String {
        let metrics = Arc::new(Metrics::new());
        let (queue, entries) = sync_channel(messages.len());
        for text in messages {
            queue.try_send(message(text)).unwrap();
        }
        drop(queue);
        let mut output = Vec::new();
        drain(&metrics, format).run(&entries, &mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = lines(format, &["a\nb\r\u{1b}[31m\u{0}\u{9b}\u{7f}\u{202e}\"c"]);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(
                text.trim_end_matches('\n').chars().all(|c| !c.is_control() && c != '\u{202e}'),
                "{text:?}"
            );
        }
    }

    #[test]
    fn people_read_a_message_after_what_it_is_about() {
        let text = lines(LogFormat::Text, &["2 connections are cut off"]);
        assert_eq!(text, "1970-01-01T00:00:00.000Z INFO  message target=test 2 connections are cut off\n");
    }

    #[test]
    fn json_lines_parse() {
        for line in lines(LogFormat::Json, &["hello", "\"", "{}"]).lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&value["kind"], &value["target"]), (&"message".into(), &"test".into()));
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting_and_the_log_tells() {
        let (queue, entries) = sync_channel(2);
        let metrics = Arc::new(Metrics::new());
        let writer = LogWriter { queue, metrics: metrics.clone() };
        for _ in 0..5 {
            writer.send(message("x"));
        }
        assert!(metrics.render().contains("portcullis_log_records_dropped_total 3"));
        drop(writer);
        let mut output = Vec::new();
        drain(&metrics, LogFormat::Text).run(&entries, &mut output);
        let output = String::from_utf8(output).unwrap();
        assert_eq!(output.lines().count(), 3, "{output}");
        assert!(output.contains("3 log records were dropped"), "{output}");
    }

    #[test]
    fn a_flush_waits_for_room_and_ends_in_time() {
        let (queue, entries) = sync_channel(1);
        let metrics = Arc::new(Metrics::new());
        let writer = LogWriter { queue, metrics: metrics.clone() };
        writer.send(message("x"));
        let began = Instant::now();
        writer.flush(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(5), "nobody reads, and it came back");
        let reader = thread::spawn(move || {
            let mut output = Vec::new();
            drain(&metrics, LogFormat::Text).run(&entries, &mut output);
            output
        });
        writer.flush(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
        drop(writer);
        assert_eq!(String::from_utf8(reader.join().unwrap()).unwrap().lines().count(), 1);
    }

    #[test]
    fn records_that_could_not_be_written_are_counted() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (queue, entries) = sync_channel(2);
        let metrics = Arc::new(Metrics::new());
        queue.try_send(message("a")).unwrap();
        queue.try_send(message("b")).unwrap();
        drop(queue);
        drain(&metrics, LogFormat::Json).run(&entries, Closed);
        assert_eq!(metrics.dropped(), 2);
    }

    #[test]
    fn pingora_is_heard_below_errors_only_by_those_who_debug() {
        let heard = |level: LevelFilter, target: &str, of: Level| {
            is_heard(level, &log::Metadata::builder().target(target).level(of).build())
        };
        assert!(heard(LevelFilter::Info, "portcullis::reload", Level::Info));
        assert!(heard(LevelFilter::Info, "pingora_proxy", Level::Error));
        assert!(!heard(LevelFilter::Info, "pingora_proxy", Level::Warn));
        assert!(heard(LevelFilter::Debug, "pingora_proxy", Level::Warn));
        assert!(!heard(LevelFilter::Off, "pingora_proxy", Level::Error));
    }
}
