//! A guest that stands still, devices and all, and goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use peerdma_machine::debug::gdb::Halt;
use peerdma_machine::runtime::RuntimeBus;
use peerdma_machine::{DebugHandle, WeakDebugHandle};

use crate::event::{Event, Events};

/// Why a debugger's guest stands still.
const IN_GDB: &str = "in gdb";
const NOT_PAUSED: &str = "the guest is not paused";

/// Pauses a guest and lets it go on. Clones are the same.
///
/// Lock order: the system's lock, then the judge's, then that of the reason in here.
#[derive(Debug, Clone)]
pub struct Pauser(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    scenario: String,
    events: Events,
    /// Neither is kept: the devices' observers hold this.
    guest: OnceLock<(WeakDebugHandle, Weak<RuntimeBus>)>,
    /// Why it stands still; none if it does not.
    reason: Mutex<Option<String>>,
    /// Whether there is a debugger: then only that lets the guest go on.
    debugged: AtomicBool,
}

impl Pauser {
    /// Of the guest of this scenario, which is not there yet.
    pub fn new(scenario: &str, events: Events) -> Self {
        let (guest, reason) = (OnceLock::new(), Mutex::default());
        let debugged = AtomicBool::new(false);
        Self(Arc::new(Inner { scenario: scenario.to_owned(), events, guest, reason, debugged }))
    }

    /// From here on it pauses this machine and its devices.
    pub fn arm(&self, machine: &DebugHandle, bus: &Arc<RuntimeBus>) {
        // Armed once: there is one machine.
        let _ = self.0.guest.set((machine.downgrade(), Arc::downgrade(bus)));
    }

    fn guest(&self) -> Option<(DebugHandle, Arc<RuntimeBus>)> {
        let (machine, bus) = self.0.guest.get()?;
        Some((machine.upgrade()?, bus.upgrade()?))
    }

    fn reason(&self) -> MutexGuard<'_, Option<String>> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the guest stands still; none if it does not.
    pub fn why(&self) -> Option<String> {
        self.reason().clone()
    }

    /// Stops the devices behind the step that is under way, and the processors where they are. The caller may be any
    /// thread, and hold the system's lock. What stands still already keeps its reason.
    pub fn pause(&self, why: &str) {
        if self.hold(why) {
            let (scenario, reason) = (self.0.scenario.clone(), why.to_owned());
            self.0.events.send(Event::Paused { scenario, reason });
        }
    }

    /// The same without a word; false if it stood still already.
    fn hold(&self, why: &str) -> bool {
        let Some((machine, bus)) = self.guest() else { return false };
        {
            let mut reason = self.reason();
            if reason.is_some() || machine.ended() {
                return false;
            }
            *reason = Some(why.to_owned());
        }
        bus.pause();
        if let Err(error) = machine.pause() {
            log::warn!("{error}: the guest may have gone on for a moment");
        }
        true
    }

    /// Lets processors and devices go on.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn resume(&self) -> Result<(), String> {
        if self.0.debugged.load(Ordering::Acquire) {
            return Err("gdb has the guest: go on there, or detach".into());
        }
        let Some((machine, _)) = self.guest() else { return Err(NOT_PAUSED.into()) };
        if !self.release() {
            return Err(NOT_PAUSED.into());
        }
        machine.resume();
        self.0.events.send(Event::Resumed { scenario: self.0.scenario.clone() });
        Ok(())
    }

    /// The devices go on; false if they did already.
    fn release(&self) -> bool {
        let was = self.reason().take();
        if let Some((_, bus)) = self.guest().filter(|_| was.is_some()) {
            bus.resume();
        }
        was.is_some()
    }
}

impl Halt for Pauser {
    fn pause(&mut self) {
        self.hold(IN_GDB);
        // The step that was under way is over when the lock has been had.
        if let Some((_, bus)) = self.guest() {
            bus.with(|_| ());
        }
    }

    fn resume(&mut self) {
        self.release();
    }

    fn is_paused(&self) -> bool {
        self.why().is_some()
    }

    fn attached(&mut self, is: bool) {
        self.0.debugged.store(is, Ordering::Release);
    }
}
