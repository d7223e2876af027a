//! Days as dates.

/// A day since 1970 in the Gregorian calendar, as `2026-01-31`.
pub fn date(day: i64) -> String {
    if !(-700_000..=2_900_000).contains(&day) {
        // Nobody wrote that here.
        return format!("day {day}");
    }
    // Years that begin in March have their odd day at their end, and 400 of them have as many days as any other 400.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(PERIOD), day.rem_euclid(PERIOD));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (PERIOD - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}

/// Days of 400 years.
const PERIOD: i64 = 146_097;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (number, shown) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (790, "1972-03-01"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (20_454, "2026-01-01"),
            (47_541, "2100-03-01"),
            (-1, "1969-12-31"),
            (i64::MAX, "day 9223372036854775807"),
        ] {
            assert_eq!(date(number), shown);
        }
        // Every day follows the one before.
        let mut last = date(-1000);
        for number in -999..60_000 {
            let shown = date(number);
            assert!(shown > last, "{last} {shown}");
            last = shown;
        }
    }
}
