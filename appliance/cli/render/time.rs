//! Times and durations for people.

const MS_PER_S: u64 = 1_000;
const MS_PER_MIN: u64 = 60 * MS_PER_S;
const MS_PER_H: u64 = 60 * MS_PER_MIN;
const MS_PER_D: u64 = 24 * MS_PER_H;

/// 2020-01-01: a wall clock that shows less has never been set.
const CLOCK_SET_MS: u64 = 1_577_836_800_000;
/// Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar.
const DAYS_TO_1970: u64 = 719_468;
/// Days of 400 years, after which the Gregorian calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;

/// A duration in its two largest units.
pub(in crate::cli) fn duration(ms: u64) -> String {
    let pair = |large: u64, large_name: &str, small: u64, small_name: &str| {
        format!("{} {large_name} {} {small_name}", ms / large, ms % large / small)
    };
    match ms {
        0..MS_PER_S => format!("{ms} ms"),
        MS_PER_S..MS_PER_MIN => format!("{}.{} s", ms / MS_PER_S, ms % MS_PER_S / 100),
        MS_PER_MIN..MS_PER_H => pair(MS_PER_MIN, "min", MS_PER_S, "s"),
        MS_PER_H..MS_PER_D => pair(MS_PER_H, "h", MS_PER_MIN, "min"),
        _ => pair(MS_PER_D, "d", MS_PER_H, "h"),
    }
}

/// A moment as RFC 3339 demands, in UTC and whole seconds; `None` where the clock was never set.
pub(super) fn rfc3339(unix_ms: u64) -> Option<String> {
    if unix_ms < CLOCK_SET_MS {
        return None;
    }
    let (year, month, day) = date(unix_ms / MS_PER_D);
    let in_day = unix_ms % MS_PER_D;
    let (hour, minute) = (in_day / MS_PER_H, in_day % MS_PER_H / MS_PER_MIN);
    let second = in_day % MS_PER_MIN / MS_PER_S;
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// Year, month and day. Years begin in March here, so that the leap day is a year's last.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970.saturating_add(DAYS_TO_1970);
    let (era, of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    // Every fourth year is a leap year, every hundredth is none, every four hundredth is one.
    let leap_days = (of_era / 1_460 + of_era / 146_096).saturating_sub(of_era / 36_524);
    let year_of_era = of_era.saturating_sub(leap_days) / 365;
    let before = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    let of_year = of_era.saturating_sub(before);
    // From March on, months have 31, 30, 31, 30, 31 days, and again: 153 in five.
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year.saturating_sub((153 * march_month + 2) / 5) + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_use_two_units() {
        assert_eq!(duration(0), "0 ms");
        assert_eq!(duration(41_250), "41.2 s");
        assert_eq!(duration(192_000), "3 min 12 s");
        assert_eq!(duration(MS_PER_D - 1), "23 h 59 min");
        assert_eq!(duration(3 * MS_PER_D + MS_PER_H), "3 d 1 h");
    }

    #[test]
    fn moments_agree_with_date_of_coreutils() {
        // date -u -d @SECONDS +%FT%TZ
        for (seconds, text) in [
            (1_577_836_800, "2020-01-01T00:00:00Z"),
            (1_582_934_400, "2020-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (13_574_563_200, "2400-02-29T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_clock_that_was_never_set_shows_no_date() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(CLOCK_SET_MS - 1), None);
    }
}
