//! One line of the log, written field by field: as JSON for machines, as `name=value` for people. Whatever a client
//! sent stays inside its value.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use log::Level;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::config::LogFormat;

/// A line that was begun; `end` ends it.
pub(super) struct Line<'a> {
    format: LogFormat,
    out: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    /// Time, level and kind lead every line.
    pub(super) fn begin(
        format: LogFormat,
        time: SystemTime,
        level: Level,
        kind: &'static str,
        out: &'a mut Vec<u8>,
    ) -> Self {
        let time = Rfc3339(time);
        // Writing to memory does not fail, here and below.
        let _ = match format {
            LogFormat::Json => {
                let level = lower_case(level);
                write!(out, r#"{{"time":"{time}","level":"{level}","kind":"{kind}""#)
            }
            LogFormat::Text => write!(out, "{time} {:5} {kind}", level.as_str()),
        };
        Self { format, out }
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        if self.format == LogFormat::Text && is_bare(value) {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            let _ = value.serialize(&mut Serializer::with_formatter(&mut *self.out, OneLine));
        }
    }

    pub(super) fn text_if_any(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(super) fn shown(&mut self, name: &'static str, value: impl Display) {
        let mut text = String::new();
        let _ = write!(text, "{value}");
        self.text(name, &text);
    }

    /// Numbers and truth values: what is the same in JSON and for people.
    pub(super) fn plain(&mut self, name: &'static str, value: impl Into<serde_json::Value>) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.out, &value.into());
    }

    /// Microseconds are as exact as anybody can use.
    pub(super) fn seconds(&mut self, name: &'static str, value: Duration) {
        self.name(name);
        let _ = write!(self.out, "{}.{:06}", value.as_secs(), value.subsec_micros());
    }

    /// A sentence of the program's own. People read it without its name, at the end of the line.
    pub(super) fn sentence(&mut self, sentence: &str) {
        if self.format == LogFormat::Text && !sentence.chars().any(breaks_lines) {
            self.out.push(b' ');
            self.out.extend_from_slice(sentence.as_bytes());
        } else {
            self.text("message", sentence);
        }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(match self.format {
            LogFormat::Json => b"}\n",
            LogFormat::Text => b"\n",
        });
    }

    /// Names are literals of ours: there is nothing to escape.
    fn name(&mut self, name: &'static str) {
        let _ = match self.format {
            LogFormat::Json => write!(self.out, ",\"{name}\":"),
            LogFormat::Text => write!(self.out, " {name}="),
        };
    }
}

/// UTC, milliseconds.
struct Rfc3339(SystemTime);

impl Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Timestamp::try_from(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            // A clock beyond the year 9999.
            Err(_) => f.write_str("?"),
        }
    }
}

fn lower_case(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// What needs no quotes to be read as one value.
fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

/// Characters that end a line, steer a terminal, or show text in another order than it has: a log is also read with
/// `journalctl` and `less`.
fn breaks_lines(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON demands that control characters below 0x20 are escaped; this also escapes the others that do harm.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut clean = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| breaks_lines(*c)) {
            writer.write_all(&fragment.as_bytes()[clean..at])?;
            // All of them are within the first plane: one unit of UTF-16.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            clean = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[clean..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(format: LogFormat, value: &str) -> String {
        let mut out = Vec::new();
        let mut line = Line::begin(format, SystemTime::UNIX_EPOCH, Level::Info, "request", &mut out);
        line.text("path", value);
        line.plain("status", 200);
        line.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn time_is_rfc_3339_in_utc_with_milliseconds() {
        let expected =
            r#"{"time":"1970-01-01T00:00:00.000Z","level":"info","kind":"request","path":"/a","status":200}"#;
        assert_eq!(line(LogFormat::Json, "/a"), format!("{expected}\n"));
        assert_eq!(
            line(LogFormat::Text, "/a"),
            "1970-01-01T00:00:00.000Z INFO  request path=/a status=200\n"
        );
    }

    #[test]
    fn a_value_cannot_pass_for_another_field() {
        let forged = line(LogFormat::Text, "/ status=500");
        assert!(forged.ends_with("path=\"/ status=500\" status=200\n"), "{forged}");
        let forged = line(LogFormat::Text, "\" status=500 \"");
        assert!(forged.ends_with("path=\"\\\" status=500 \\\"\" status=200\n"), "{forged}");
    }

    #[test]
    fn durations_are_numbers() {
        let mut out = Vec::new();
        let mut line = Line::begin(LogFormat::Json, SystemTime::UNIX_EPOCH, Level::Info, "request", &mut out);
        line.seconds("duration_seconds", Duration::from_micros(1_000_042));
        line.end();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!((value["duration_seconds"].as_f64().unwrap() - 1.000_042).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_one_line_and_comes_back_whole(value in "\\PC*|(?s).*|[\u{0}-\u{9f}\u{2028}\u{202e}\"\\\\]*") {
            let json = line(LogFormat::Json, &value);
            let text = line(LogFormat::Text, &value);
            for line in [&json, &text] {
                let (body, end) = line.split_at(line.len() - 1);
                prop_assert_eq!(end, "\n");
                prop_assert!(!body.chars().any(breaks_lines), "{:?}", body);
            }
            let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(parsed["path"].as_str(), Some(value.as_str()));
        }
    }
}
