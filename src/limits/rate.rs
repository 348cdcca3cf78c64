//! So many in such a time: `100/s`, `5/m`, `10MiB/s`, `1000/10s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Never none, and never in no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    amount: u64,
    /// Nanoseconds.
    period: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a rate (expected: a number and a time, such as `100/s`, `5/m`, `1000/10s`, `10000/d`, `10MiB/s`)"
)]
pub struct BadRate(String);

/// A century is for ever; more would overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

const SIZES: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl Rate {
    pub fn new(amount: u64, period: Duration) -> Option<Self> {
        let fits = amount > 0 && amount <= 1 << 50 && !period.is_zero() && period <= LONGEST;
        fits.then_some(Self { amount, period: period.as_nanos() as u64 })
    }

    pub fn amount(self) -> u64 {
        self.amount
    }

    pub fn period(self) -> Duration {
        Duration::from_nanos(self.period)
    }

    /// Whether there are at most `most` in a second.
    pub fn is_at_most(self, most: u64) -> bool {
        u128::from(self.amount) * 1_000_000_000 <= u128::from(most) * u128::from(self.period)
    }

    /// Nanoseconds in which so many come, rounded up.
    pub fn time_for(self, amount: u64) -> u64 {
        // Nearly always it fits, and a division of 64 bits is much cheaper.
        let time = match amount.checked_mul(self.period) {
            Some(product) => product.div_ceil(self.amount).into(),
            None => (u128::from(amount) * u128::from(self.period)).div_ceil(self.amount.into()),
        };
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    /// How many come in so many nanoseconds.
    pub fn amount_in(self, time: u64) -> u64 {
        let amount = u128::from(time) * u128::from(self.amount) / u128::from(self.period);
        u64::try_from(amount).unwrap_or(u64::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let (amount, period) = text.split_once('/')?;
        let digits = amount.find(|c: char| !c.is_ascii_digit()).unwrap_or(amount.len());
        let (number, size) = amount.split_at(digits);
        let size = if size.is_empty() { 1 } else { SIZES.iter().find(|(name, _)| *name == size)?.1 };
        let amount = number.parse::<u64>().ok()?.checked_mul(size)?;
        let digits = period.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = period.split_at(digits);
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let number: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
        Self::new(amount, Duration::from_secs(number.checked_mul(unit)?))
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        Self::parse(text).ok_or_else(|| BadRate(text.to_owned()))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.period / 1_000_000_000;
        let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        let (unit, name) =
            units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, "s"));
        match seconds / unit {
            1 => write!(f, "{}/{name}", self.amount),
            number => write!(f, "{}/{number}{name}", self.amount),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown() {
        for (text, amount, seconds, shown) in [
            ("100/s", 100, 1, "100/s"),
            ("5/m", 5, 60, "5/m"),
            ("1000/10s", 1_000, 10, "1000/10s"),
            ("10000/d", 10_000, 86_400, "10000/d"),
            ("90/60m", 90, 3_600, "90/h"),
            ("10MiB/s", 10 << 20, 1, "10485760/s"),
            ("5kB/2h", 5_000, 7_200, "5000/2h"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.amount(), rate.period().as_secs()), (amount, seconds), "{text}");
            assert_eq!(rate.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "",
            "5",
            "/s",
            "0/s",
            "5/",
            "5/0s",
            "-5/s",
            "5 /s",
            "5/s ",
            "1.5/s",
            "5/w",
            "5/ms",
            "5XB/s",
            "5mib/s",
            "99999999999999999999/s",
            "20000000TiB/s",
            "5/99999999999d",
            "5/s/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_rounded_up_and_amounts_down() {
        let rate: Rate = "3/s".parse().unwrap();
        assert_eq!(rate.time_for(1), 333_333_334);
        assert_eq!(rate.amount_in(333_333_333), 0);
        assert_eq!(rate.amount_in(333_333_334), 1);
        let fast: Rate = "10GiB/s".parse().unwrap();
        assert_eq!(fast.time_for(1), 1);
        assert_eq!(fast.time_for(u64::MAX), 1_717_986_918_400_000_000u128.min(u64::MAX.into()) as u64);
    }
}
