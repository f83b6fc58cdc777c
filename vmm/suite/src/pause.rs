//! A guest that stands still, devices and all, and goes on.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use peerdma_machine::DebugHandle;
use peerdma_machine::runtime::RuntimeBus;

use crate::event::{Event, Events};

/// Pauses a guest and lets it go on. Clones are the same.
///
/// Lock order: the system's lock, then the judge's, then that of the reason in here.
#[derive(Debug, Clone)]
pub struct Pauser(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    scenario: String,
    events: Events,
    guest: OnceLock<(DebugHandle, Weak<RuntimeBus>)>,
    /// Why it stands still; none if it does not.
    reason: Mutex<Option<String>>,
}

impl Pauser {
    /// Of the guest of this scenario, which is not there yet.
    pub fn new(scenario: &str, events: Events) -> Self {
        let (guest, reason) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Inner { scenario: scenario.to_owned(), events, guest, reason }))
    }

    /// From here on it pauses this machine and its devices.
    pub fn arm(&self, machine: DebugHandle, bus: &Arc<RuntimeBus>) {
        // Armed once: there is one machine.
        let _ = self.0.guest.set((machine, Arc::downgrade(bus)));
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
        let Some((machine, bus)) = self.0.guest.get() else { return };
        {
            let mut reason = self.reason();
            if reason.is_some() || machine.ended() {
                return;
            }
            *reason = Some(why.to_owned());
        }
        if let Some(bus) = bus.upgrade() {
            bus.pause();
        }
        if let Err(error) = machine.pause() {
            log::warn!("{error}: the guest may have gone on for a moment");
        }
        let (scenario, reason) = (self.0.scenario.clone(), why.to_owned());
        self.0.events.send(Event::Paused { scenario, reason });
    }

    /// Lets processors and devices go on; false if they did already.
    pub fn resume(&self) -> bool {
        let Some((machine, bus)) = self.0.guest.get() else { return false };
        if self.reason().take().is_none() {
            return false;
        }
        if let Some(bus) = bus.upgrade() {
            bus.resume();
        }
        machine.resume();
        self.0.events.send(Event::Resumed { scenario: self.0.scenario.clone() });
        true
    }
}
