//! Seconds since 1970 to calendar time and back, in UTC, proleptic Gregorian.

use std::fmt;

use crate::UnixTime;

/// A moment as the calendar has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

/// `2026-01-02 03:04:05 UTC`.
pub fn utc(time: UnixTime) -> impl fmt::Display {
    struct Utc(Civil);
    impl fmt::Display for Utc {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Civil { year, month, day, hour, minute, second } = self.0;
            write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
        }
    }
    Utc(civil(time))
}

/// Howard Hinnant's `civil_from_days`: years start in March, so that the leap day comes last.
pub(crate) fn civil(time: UnixTime) -> Civil {
    let (days, seconds) = (time.div_euclid(86_400) + 719_468, time.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * march_month + 2) / 5 + 1,
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
    }
}

/// The inverse of [`civil`]; `None` for what is on no calendar.
pub(crate) fn unix_time(at: Civil) -> Option<UnixTime> {
    let Civil { year, month, day, hour, minute, second } = at;
    if !(1..=12).contains(&month) || !(0..=9999).contains(&year) {
        return None;
    }
    let march_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (march_year.div_euclid(400), march_year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let time = days * 86_400 + hour * 3600 + minute * 60 + second;
    // A 31 April comes back as another day.
    (civil(time) == at).then_some(time)
}
