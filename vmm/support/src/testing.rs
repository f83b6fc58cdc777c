//! For unit tests: what code under test logs.

use std::cell::RefCell;

thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what the present thread logs.
struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        TOLD.with_borrow_mut(|told| told.push(record.args().to_string()));
    }
    fn flush(&self) {}
}

/// What the present thread warns of in `course`.
pub fn told(course: impl FnOnce()) -> Vec<String> {
    // The only logger of the unit tests; it is there already the second time.
    let _ = log::set_logger(&Keeper);
    log::set_max_level(log::LevelFilter::Warn);
    TOLD.take();
    course();
    TOLD.take()
}
