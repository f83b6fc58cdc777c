//! Objects that live as long as a shell or a script: open devices, their memory and imports, and dma-bufs.

use crate::arguments::Name;
use crate::error::CtlError;
use crate::kinds::MemoryKind;
use crate::operand::check_name;
use guest_agent::device::{self, DEVICE, Object, Peer, VENDOR};
use guest_agent::sys::pci::Function;
use guest_agent::vmm::{Expected, PathKind, PortWire, Vmm};
use guest_protocol::started::{BY_BOOT, BY_TEST, is_started};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The most devices that are looked for: more than a topology can have.
const MAX_DEVICES: u32 = 64;

/// An object of an open device.
#[derive(Debug)]
pub(crate) struct Held {
    /// The device's number.
    pub(crate) device: u32,
    /// The driver's name for it.
    pub(crate) object: Object,
    pub(crate) what: HeldKind,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeldKind {
    /// Memory that was allocated.
    Memory(MemoryKind),
    /// A dma-buf that was attached.
    Import {
        /// What it was called then.
        buffer: String,
        /// The device whose memory it is; none where that is not known, or RAM.
        owner: Option<u32>,
    },
}

/// A dma-buf.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) fd: OwnedFd,
    pub(crate) size: u64,
    /// The device that exports it; none if another process has sent it and did not say.
    pub(crate) owner: Option<u32>,
    /// What backs it, in words.
    pub(crate) of: String,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Session {
    devices: BTreeMap<u32, Peer>,
    pub(crate) objects: BTreeMap<String, Held>,
    pub(crate) buffers: BTreeMap<String, Buffer>,
    numbers: BTreeMap<char, u32>,
    vmm: Option<Vmm>,
    /// What is expected of the kernel; nothing where the VMM has not said.
    expected: Option<Expected>,
}

impl Session {
    /// An empty one. Asks the VMM for the devices' names.
    pub(crate) fn new() -> Self {
        let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let is_guest = is_started(&line, BY_BOOT) || is_started(&line, BY_TEST);
        // On any other machine the port's number may mean something else.
        let wire = is_guest.then(|| PortWire::open().ok()).flatten();
        let mut vmm = wire.map(|wire| Vmm::new(Box::new(wire)));
        let mut expected = None;
        if let Some(asked) = &mut vmm {
            match asked.hello() {
                Ok(hello) => expected = hello.expected,
                Err(_) => vmm = None,
            }
        }
        Self {
            devices: BTreeMap::new(),
            objects: BTreeMap::new(),
            buffers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            vmm,
            expected,
        }
    }

    /// What the kernel is expected to decide about DMA by one device into the memory of another.
    pub(crate) fn expected_way(&self, client: u32, owner: u32) -> Option<PathKind> {
        let paths = &self.expected.as_ref()?.paths;
        let path = paths.iter().find(|(from, to, _)| (*from, *to) == (client, owner));
        path.map(|(_, _, path)| path.way)
    }

    /// The VMM, if this is a guest of peerdma.
    pub(crate) fn vmm(&mut self) -> Option<&mut Vmm> {
        self.vmm.as_mut()
    }

    /// The VMM.
    pub(crate) fn need_vmm(&mut self) -> Result<&mut Vmm, CtlError> {
        self.vmm.as_mut().ok_or_else(|| {
            CtlError::environment(
                "the VMM does not answer: this is not a guest of peerdma, or you are not root",
            )
        })
    }

    /// Numbers of all devices that are there.
    pub(crate) fn all_devices() -> Vec<u32> {
        (0..MAX_DEVICES).filter(|number| Peer::path(*number).exists()).collect()
    }

    /// Opens each device that is there.
    pub(crate) fn open_all(&mut self) -> Result<Vec<u32>, CtlError> {
        let all = Self::all_devices();
        if all.is_empty() {
            return Err(no_devices());
        }
        for number in &all {
            self.open(*number)?;
        }
        Ok(all)
    }

    /// The device called `text`: its name in the topology, its number, or its address on the bus.
    pub(crate) fn device(&mut self, text: &str) -> Result<u32, CtlError> {
        let all = self.open_all()?;
        let is_it = |number: &u32| {
            let by_address = self.devices.get(number).is_some_and(|peer| {
                let function = peer.function();
                function.name == text || function.address() == text
            });
            by_address || device::name(*number) == text || number.to_string() == text
        };
        all.iter().copied().find(is_it).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|number| device::name(*number)).collect();
            CtlError::usage(format!("{text:?} is not a peer device"))
                .hint(format!("these are: {}", names.join(", ")))
        })
    }

    fn open(&mut self, number: u32) -> Result<&Peer, CtlError> {
        use std::collections::btree_map::Entry;
        match self.devices.entry(number) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Peer::open(number)?)),
        }
    }

    /// An open device.
    pub(crate) fn peer(&self, number: u32) -> Result<&Peer, CtlError> {
        let peer = self.devices.get(&number);
        peer.ok_or_else(|| CtlError::refused(format!("{} is not open", device::name(number))))
    }

    /// All that are open.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.devices.values()
    }

    /// Closes the devices, when nothing of theirs is held: for what takes them away.
    pub(crate) fn close_devices(&mut self) -> Result<(), CtlError> {
        if !self.objects.is_empty() {
            let names: Vec<_> = self.objects.keys().cloned().collect();
            return Err(CtlError::usage("this takes devices away, and objects of theirs are held")
                .hint(format!("close them first: {}", names.join(", "))));
        }
        self.devices.clear();
        Ok(())
    }

    /// The object called `name`.
    pub(crate) fn held(&self, name: &str) -> Result<&Held, CtlError> {
        self.objects.get(name).ok_or_else(|| match self.buffers.contains_key(name) {
            true => CtlError::usage(format!(
                "{name} is a dma-buf, and this wants an object of a device"
            ))
            .hint(format!("`import DEVICE {name}` makes one of it")),
            false => self.unknown(name, "an object"),
        })
    }

    /// The dma-buf called `name`.
    pub(crate) fn buffer(&self, name: &str) -> Result<&Buffer, CtlError> {
        self.buffers.get(name).ok_or_else(|| match self.objects.contains_key(name) {
            true => CtlError::usage(format!("{name} is not a dma-buf"))
                .hint(format!("`export {name}` makes one of it")),
            false => self.unknown(name, "a dma-buf"),
        })
    }

    fn unknown(&self, name: &str, what: &str) -> CtlError {
        let names: Vec<_> = self.objects.keys().chain(self.buffers.keys()).cloned().collect();
        let error = CtlError::usage(format!("{name:?} is not {what}"));
        if names.is_empty() {
            return error.hint(
                "there are none yet. Objects live within one `peerdmactl shell`, script, or -c 'COMMAND; COMMAND'",
            );
        }
        error.hint(format!("these are: {}", names.join(", ")))
    }

    /// The name of something new: the one that is wanted, or `letter` and a number.
    pub(crate) fn name(&mut self, wanted: &Name, letter: char) -> Result<String, CtlError> {
        let is_free = |session: &Self, name: &str| {
            !session.objects.contains_key(name) && !session.buffers.contains_key(name)
        };
        if let Some(name) = &wanted.name {
            check_name(name).map_err(CtlError::usage)?;
            return match is_free(self, name) {
                true => Ok(name.clone()),
                false => Err(CtlError::usage(format!("{name} is there already"))
                    .hint(format!("`close {name}`, or take another name"))),
            };
        }
        loop {
            let number = self.numbers.entry(letter).or_default();
            let name = format!("{letter}{number}");
            *number += 1;
            if is_free(self, &name) {
                return Ok(name);
            }
        }
    }
}

/// Why there is not one device.
fn no_devices() -> CtlError {
    let on_bus = Function::all()
        .map(|all| all.iter().filter(|function| function.is(VENDOR, DEVICE)).count())
        .unwrap_or_default();
    if !Path::new("/sys/module/peerdma").exists() {
        return CtlError::environment(
            "the module peerdma is not loaded: it is the lab's own driver, which this program calls",
        )
        .hint("with boot --module FILE.ko, give --with-driver too");
    }
    match on_bus {
        0 => CtlError::environment("the topology has no peer device").hint(
            "boot with --device peer, or with a topology that has some: `peerdma topology --list` on the host",
        ),
        _ => CtlError::environment(format!(
            "{on_bus} peer devices are on the bus, but none has a /dev/peerdmaN: another driver has them"
        )),
    }
}
