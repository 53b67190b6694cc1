//! Times and sizes for people.

/// Bytes as `zfs list` prints them.
pub use icecore_dsl::prop::nice_bytes as bytes;

/// Seconds since 1970 as local time in the form of `zfs get creation`: `Sun Nov 22 23:10 2026`.
#[must_use]
pub fn time(seconds: u64) -> String {
    let local = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    match local {
        Some(t) => t.to_zoned(jiff::tz::TimeZone::system()).strftime("%a %b %e %H:%M %Y").to_string(),
        None => seconds.to_string(),
    }
}
