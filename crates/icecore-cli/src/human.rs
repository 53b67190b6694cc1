//! Times and sizes for people.

/// Bytes as `zfs list` prints them.
pub use icecore_dsl::prop::nice_bytes as bytes;

/// Counts as `zpool status` prints them.
pub use icecore_dsl::prop::nice_number as number;

/// Seconds since 1970 as local time in the form of `zfs get creation`: `Sun Nov 22  3:10 2026` (`zfs_prop_get`,
/// libzfs_dataset.c).
#[must_use]
pub fn time(seconds: u64) -> String {
    local(seconds, "%a %b %e %k:%M %Y")
}

/// The same as `ctime` has it, which `zpool status` shows: `Sun Nov 22 23:10:05 2026`.
#[must_use]
pub fn time_with_seconds(seconds: u64) -> String {
    local(seconds, "%a %b %e %H:%M:%S %Y")
}

/// The same with the zone's name, as `date` has it.
#[must_use]
pub fn time_with_zone(seconds: u64) -> String {
    local(seconds, "%a %b %e %H:%M:%S %Z %Y")
}

/// What people are shown of a property: of a time, the local time; of anything else its own words.
#[must_use]
pub fn property(row: &icecore_dsl::prop::PropRow) -> String {
    match form_of(&row.name) {
        Some(form) => row.value.parse().map_or_else(|_| row.human.clone(), |seconds| local(seconds, form)),
        None => row.human.clone(),
    }
}

/// The same of the answer about the property `name`, added to `out`.
pub fn answer(name: &str, answer: &icecore_dsl::prop::Answer<'_>, out: &mut String) {
    match form_of(name).zip(answer.plain()) {
        Some((form, seconds)) => out.push_str(&local(seconds, form)),
        None => answer.write(false, out),
    }
}

/// The form of a property that is a time.
fn form_of(name: &str) -> Option<&'static str> {
    match name {
        "creation" => Some("%a %b %e %k:%M %Y"),
        "snapshots_changed" => Some("%a %b %e %k:%M:%S %Y"),
        _ => None,
    }
}

fn local(seconds: u64, form: &str) -> String {
    let local = i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    match local {
        Some(t) => t.to_zoned(crate::caller::time_zone()).strftime(form).to_string(),
        None => seconds.to_string(),
    }
}

/// What an error of the operating system means, as `strerror` has it: without Rust's number.
#[must_use]
pub fn os_error(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).trim_end().to_string()
}

/// Seconds as `zpool status` shows a time span: `01:02:03`, from a day on `2 days 01:02:03`.
#[must_use]
pub fn duration(secs: u64) -> String {
    let (days, h, m, s) = (secs / 86400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    if days > 0 { format!("{days} days {h:02}:{m:02}:{s:02}") } else { format!("{h:02}:{m:02}:{s:02}") }
}

/// A time as `zpool history` shows it: `2026-11-22.23:10:05`.
#[must_use]
pub fn time_of_history(seconds: u64) -> String {
    local(seconds, "%F.%T")
}
