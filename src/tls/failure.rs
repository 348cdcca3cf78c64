//! Tells the ways apart in which a handshake fails.
//!
//! Each library has its own reason codes; a fatal alert that the client sent has the code 1000 plus the alert's number
//! in all of them.

use openssl::ssl::{Error, ErrorCode, SslRef};

use super::{library, rejection};
use crate::telemetry::HandshakeFailure;

const ALERTS: std::ops::RangeInclusive<i32> = 1000..=1255;

/// Names the failure; `ssl` tells what was thought of the certificate, if one came.
pub fn classify(error: &Error, ssl: &SslRef) -> HandshakeFailure {
    if let Some(rejection) = rejection(ssl) {
        return HandshakeFailure::from(rejection.reason);
    }
    let Some(reason) = reason_code(error) else {
        return match error.code() {
            ErrorCode::SYSCALL | ErrorCode::ZERO_RETURN => HandshakeFailure::Disconnected,
            _ if error.io_error().is_some() => HandshakeFailure::Disconnected,
            _ => HandshakeFailure::Internal,
        };
    };
    if ALERTS.contains(&reason) {
        return HandshakeFailure::ClientAlert;
    }
    library::failure(reason, ssl).unwrap_or(HandshakeFailure::Protocol)
}

/// What happened, in a sentence for the log.
pub fn describe(error: &Error, ssl: &SslRef) -> String {
    if let Some(rejection) = rejection(ssl) {
        return rejection.detail;
    }
    let alert = reason_code(error).filter(|code| ALERTS.contains(code)).map(|code| code - 1000);
    if let Some(alert) = alert {
        return format!("the client ended the handshake with TLS alert {alert} ({})", alert_name(alert));
    }
    let failure = classify(error, ssl);
    match error.ssl_error().and_then(|stack| stack.errors().first()).and_then(openssl::error::Error::reason) {
        Some(reason) if failure == HandshakeFailure::Protocol || failure == HandshakeFailure::Internal => {
            format!("{} ({reason})", failure.sentence())
        }
        _ => failure.sentence().to_owned(),
    }
}

fn reason_code(error: &Error) -> Option<i32> {
    let errors = error.ssl_error()?.errors();
    errors
        .iter()
        .find(|error| error.library_code() == library::LIBRARY_SSL)
        .map(openssl::error::Error::reason_code)
}

/// RFC 8446, section 6.
fn alert_name(alert: i32) -> &'static str {
    match alert {
        10 => "unexpected_message",
        20 => "bad_record_mac",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca: it does not trust our certificate",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        90 => "user_canceled",
        _ => "see RFC 8446, section 6",
    }
}
