//! Clock times of the day.

/// Minutes of a day.
pub(crate) const MINUTES_PER_DAY: usize = 24 * 60;

/// Minutes of the day of `HH:mm`; 24:00 is the end of the day.
pub(crate) fn hour_minute(text: &str) -> Option<usize> {
    let (hour, minute) = text.split_once(':')?;
    let number = |part: &str| {
        let is_plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        is_plain.then(|| part.parse::<usize>().ok()).flatten()
    };
    match (number(hour)?, number(minute)?) {
        (24, 0) => Some(MINUTES_PER_DAY),
        (hour @ 0..24, minute @ 0..60) => Some(hour * 60 + minute),
        _ => None,
    }
}

/// `HH:mm` of minutes of the day.
pub(crate) fn shown(minute: usize) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}
