//! The wall clock that templates ask for through `strftime_now`; the caller of a rendering passes it in.

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment as a clock on the wall shows it: seconds since 1970-01-01 00:00 of the wall's own time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    seconds: i64,
}

/// The calendar's view of a moment.
struct Date {
    year: i64,
    month: usize,
    day: i64,
    /// 1 on the first of January.
    day_of_year: i64,
    /// 0 on Sunday.
    weekday: usize,
}

impl WallClock {
    /// The clock in a zone `offset_seconds` ahead of UTC. Years outside 1 to 9999 are moved to the nearest.
    pub fn new(unix_seconds: i64, offset_seconds: i32) -> Self {
        let seconds = unix_seconds.saturating_add(i64::from(offset_seconds));
        Self { seconds: seconds.clamp(-62_135_596_800, 253_402_300_799) }
    }

    /// The clock in UTC.
    pub fn utc(unix_seconds: i64) -> Self {
        Self::new(unix_seconds, 0)
    }

    /// Formats as Python's `strftime` does in the C locale for a time without zone.
    pub(super) fn format(self, format: &str) -> Result<String, Error> {
        use std::fmt::Write as _;
        let date = self.date();
        let second_of_day = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        let hour12 = (hour + 11) % 12 + 1;
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let mut directive = characters.next();
            let padded = directive != Some('-');
            if !padded {
                directive = characters.next();
            }
            let mut number = |value: i64, width: usize| {
                let width = if padded { width } else { 0 };
                write!(out, "{value:0width$}")
            };
            let written = match directive {
                Some('Y') => number(date.year, 4),
                Some('y') => number(date.year % 100, 2),
                Some('m') => number(date.month as i64 + 1, 2),
                Some('e') if padded => write!(out, "{:>2}", date.day),
                Some('d' | 'e') => number(date.day, 2),
                Some('H') => number(hour, 2),
                Some('I') => number(hour12, 2),
                Some('M') => number(minute, 2),
                Some('S') => number(second, 2),
                Some('f') => number(0, 6),
                Some('j') => number(date.day_of_year, 3),
                Some('w') => number(date.weekday as i64, 1),
                Some('u') => number((date.weekday as i64 + 6) % 7 + 1, 1),
                Some('s') => number(self.seconds, 1),
                Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
                Some('a') => write!(out, "{}", &DAYS[date.weekday][..3]),
                Some('A') => write!(out, "{}", DAYS[date.weekday]),
                Some('b' | 'h') => write!(out, "{}", &MONTHS[date.month][..3]),
                Some('B') => write!(out, "{}", MONTHS[date.month]),
                Some('F') => write!(out, "{}", self.format("%Y-%m-%d")?),
                Some('D' | 'x') => write!(out, "{}", self.format("%m/%d/%y")?),
                Some('T' | 'X') => write!(out, "{}", self.format("%H:%M:%S")?),
                Some('R') => write!(out, "{}", self.format("%H:%M")?),
                Some('c') => write!(out, "{}", self.format("%a %b %e %H:%M:%S %Y")?),
                Some('n') => writeln!(out),
                Some('t') => write!(out, "\t"),
                Some('%') => write!(out, "%"),
                // A time without zone has neither a name nor an offset.
                Some('Z' | 'z') => Ok(()),
                other => {
                    let directive = other.map_or_else(|| "at the end".to_owned(), |c| format!("{c:?}"));
                    let reason = format!("strftime_now: directive {directive} of {format:?} is not known");
                    return Err(Error::new(ErrorKind::InvalidOperation, reason));
                }
            };
            written.map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now: cannot write"))?;
        }
        Ok(out)
    }

    /// The proleptic Gregorian date, counted in years that begin on 1 March, so that a leap day ends its year.
    fn date(self) -> Date {
        let days = self.seconds.div_euclid(86_400);
        let since_march_0000 = days + 719_468;
        let era = since_march_0000.div_euclid(146_097);
        let day_of_era = since_march_0000.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_march_year + 2) / 153;
        let day = day_of_march_year - (153 * month_from_march + 2) / 5 + 1;
        let month = ((month_from_march + 2) % 12) as usize;
        let year = era * 400 + year_of_era + i64::from(month < 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month];
        let day_of_year = before + day + i64::from(leap && month > 1);
        Date { year, month, day, day_of_year, weekday: (days + 4).rem_euclid(7) as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::WallClock;

    /// Expected texts are those of Python 3.11's `datetime.strftime`.
    #[test]
    fn dates_are_those_of_python() {
        let all = "%Y-%m-%d %H:%M:%S %I %p %a %A %b %B %j %w %u %y %e %-d|%-m|%%";
        for (seconds, expect) in [
            (0, "1970-01-01 00:00:00 12 AM Thu Thursday Jan January 001 4 4 70  1 1|1|%"),
            (951_827_696, "2000-02-29 12:34:56 12 PM Tue Tuesday Feb February 060 2 2 00 29 29|2|%"),
            (1_735_689_599, "2024-12-31 23:59:59 11 PM Tue Tuesday Dec December 366 2 2 24 31 31|12|%"),
            (-1, "1969-12-31 23:59:59 11 PM Wed Wednesday Dec December 365 3 3 69 31 31|12|%"),
            (4_107_542_399, "2100-02-28 23:59:59 11 PM Sun Sunday Feb February 059 0 7 00 28 28|2|%"),
        ] {
            assert_eq!(WallClock::utc(seconds).format(all).expect("known directives"), expect);
        }
        assert_eq!(WallClock::new(0, -3600).format("%F %T").expect("known directives"), "1969-12-31 23:00:00");
        assert!(WallClock::utc(0).format("%Q").is_err());
        assert!(WallClock::utc(0).format("%").is_err());
        WallClock::utc(i64::MAX).format("%c").expect("any moment has a date");
    }
}
