//! The progress bar of commands that take their time: what is done, of how much, how fast, how much longer.
//!
//! Invariant: it goes to standard error, and only to a terminal; scripts and logs see nothing of it.

use crate::caller;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar over bytes, beginning with `verb`; `shown` is false where something else tells the progress.
/// The message (what is being done) and the total can still be set, and be set again.
pub fn bytes(verb: &str, shown: bool) -> ProgressBar {
    if !shown || !caller::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), caller::draw_target());
    let template = "{prefix} {wide_msg} {bytes}/{total_bytes} [{bar:30}] {binary_bytes_per_sec} ETA {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(verb.to_owned());
    bar
}

/// Shows `done` of `total` bytes; a total that was guessed too low grows with what is done.
pub fn show(bar: &ProgressBar, done: u64, total: u64) {
    bar.set_length(total.max(done));
    bar.set_position(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_was_too_low_gives_way() {
        let bar = bytes("counting", false);
        show(&bar, 5, 10);
        assert_eq!((bar.position(), bar.length()), (5, Some(10)));
        show(&bar, 12, 10);
        assert_eq!((bar.position(), bar.length()), (12, Some(12)));
    }
}
