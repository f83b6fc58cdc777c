//! The devices and helpers that a test gets.

use super::Stop;
use crate::device::{DeviceError, Peer, Work};
use crate::sys::kernel_log::Record;
use crate::uapi;
use crate::vmm::{Counters, Hello, Vmm};

/// There as long as the witness of mappings is loaded.
pub(super) const WITNESS: &str = "/sys/module/dma_witness";

/// The devices, the VMM, and what the test says about what must be found.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The VMM, when it answers.
    pub vmm: Option<&'a mut Vmm>,
    peers: [Option<Peer>; 2],
    /// What the kernel said before the first test.
    pub boot: &'a [Record],
    /// Parts of kernel messages that belong to this test.
    pub(super) expected_messages: Vec<&'static str>,
    /// What the report should say about the test besides its result.
    pub(super) notes: Vec<String>,
    /// What is to be found, for a mistake that the VMM is to take for one; otherwise the VMM is asked to expect it.
    pub(super) announced: Option<Vec<Announced>>,
}

/// Findings that a mistake brings about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Their class.
    pub class: String,
    /// At least this many.
    pub min: u32,
    /// At most this many; none: any number.
    pub max: Option<u32>,
}

impl<'a> Bench<'a> {
    /// A bench for one test, with nothing opened yet.
    pub fn new(vmm: Option<&'a mut Vmm>, boot: &'a [Record]) -> Self {
        Self {
            vmm,
            boot,
            peers: [None, None],
            expected_messages: Vec::new(),
            notes: Vec::new(),
            announced: None,
        }
    }

    /// A peer device, opened when first asked for.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn peer(&mut self, instance: usize) -> Result<&Peer, DeviceError> {
        let slot = &mut self.peers[instance];
        match slot {
            Some(peer) => Ok(peer),
            None => Ok(slot.insert(Peer::open(u32::try_from(instance).unwrap_or(u32::MAX))?)),
        }
    }

    /// Both, taken out of the bench: the test decides when they close.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn take_peers(&mut self) -> Result<(Peer, Peer), DeviceError> {
        let mut take = |instance: u32| match self.peers[instance as usize].take() {
            Some(peer) => Ok(peer),
            None => Peer::open(instance),
        };
        Ok((take(0)?, take(1)?))
    }

    /// What the VMM said that this guest is for; none if it does not answer.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn hello(&mut self) -> Result<Option<Hello>, Stop> {
        Ok(self.vmm.as_mut().map(|vmm| vmm.hello()).transpose()?)
    }

    /// Closes what has been opened so far, so that a driver can be taken away.
    pub fn close_peers(&mut self) {
        self.peers = [None, None];
    }

    /// The checker must find this class between `min` and `max` times (`None`: any number above `min`).
    ///
    /// # Errors
    /// When the VMM does not answer or knows no such class.
    pub fn expect(&mut self, class: &str, min: u32, max: Option<u32>) -> Result<(), Stop> {
        if let Some(announced) = &mut self.announced {
            announced.push(Announced { class: class.to_owned(), min, max });
            return Ok(());
        }
        match self.vmm.as_mut() {
            Some(vmm) => Ok(vmm.case_expect(class, min, max)?),
            None => Err(Stop::Skip("the VMM does not answer".into())),
        }
    }

    /// The same for a class that only the witness of mappings can find: nothing is expected in a
    /// guest without one.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub fn expect_witnessed(
        &mut self,
        class: &str,
        min: u32,
        max: Option<u32>,
    ) -> Result<(), Stop> {
        match std::path::Path::new(WITNESS).exists() {
            true => self.expect(class, min, max),
            false => Ok(()),
        }
    }

    /// Kernel messages with this part belong to the test and are no complaint.
    pub fn expect_message(&mut self, part: &'static str) {
        self.expected_messages.push(part);
    }

    /// Several such parts.
    pub fn expect_messages(&mut self, parts: &[&'static str]) {
        self.expected_messages.extend_from_slice(parts);
    }

    /// A line for the report, whatever becomes of the test.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The VMM's counters now.
    ///
    /// # Errors
    /// When the VMM does not answer.
    pub fn stat(&mut self) -> Result<Counters, Stop> {
        match self.vmm.as_mut() {
            Some(vmm) => Ok(vmm.stat()?),
            None => Err(Stop::Skip("the VMM does not answer".into())),
        }
    }

    /// One counter of the VMM.
    ///
    /// # Errors
    /// When the VMM does not answer or has no such counter: the test and the VMM do not fit together.
    pub fn counter(&mut self, path: &str) -> Result<u64, Stop> {
        let stat = self.stat()?;
        stat.counter(path)
            .ok_or_else(|| Stop::Fail(format!("the VMM's stat has no counter {path}: {stat:?}")))
    }
}

/// Runs work that must succeed; gives its result.
///
/// # Errors
/// When it does not.
pub(super) fn must(peer: &Peer, work: Work) -> Result<uapi::Wait, Stop> {
    succeeded(peer, peer.run(work)?)
}

/// Whether work that was waited for has succeeded.
///
/// # Errors
/// When it has not, with all the device said.
pub(super) fn succeeded(peer: &Peer, result: uapi::Wait) -> Result<uapi::Wait, Stop> {
    if result.error == 0 {
        return Ok(result);
    }
    Err(Stop::Fail(format!(
        "{}: work failed: error {}, status {}, halt {}, {} bytes done, at DMA address {:#x}, verdict {}",
        peer.name(),
        result.error,
        result.status,
        result.halt,
        result.bytes,
        result.error_address,
        result.verdict
    )))
}
