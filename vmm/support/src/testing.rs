//! For unit tests: what code under test logs.

use std::cell::RefCell;

thread_local! {
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what the present thread logs.
struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOGGED.with_borrow_mut(|logged| logged.push(record.args().to_string()));
    }
    fn flush(&self) {}
}

/// What the present thread warns of in `course`.
pub fn logged(course: impl FnOnce()) -> Vec<String> {
    // The only logger of the unit tests; it is there already the second time.
    let _ = log::set_logger(&Keeper);
    log::set_max_level(log::LevelFilter::Warn);
    LOGGED.take();
    course();
    LOGGED.take()
}
