//! gdb's remote serial protocol: the guest's kernel in a debugger, its processors as threads.
//!
//! The bytes of one client after another come as messages ([`message`]), each a length of 32 bits (little endian) and as
//! many bytes; a length of 0 says that the client has come or gone, or, the other way round, that the session is over. So
//! they can travel through a port of a test host, which knows no connections.

mod connection;
mod registers;
mod target;

use std::fmt;
use std::io::{Read, Write};
use std::marker::PhantomData;

use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{GdbStub, MultiThreadStopReason};

pub use self::connection::message;
use self::connection::{Client, Messages};
use self::target::{Guest, TargetError};
use super::DebugHandle;

/// Has a guest stand still, devices and all, and go on.
pub trait Halt: Send {
    /// It stands still when this returns.
    fn pause(&mut self);
    /// The devices go on; the processors are the caller's to release.
    fn resume(&mut self);
    /// Whether something has paused it.
    fn is_paused(&self) -> bool;
    /// A debugger has come, or gone: as long as it is there, only it lets the guest go on.
    fn attached(&mut self, is: bool);
}

/// Serves one client after the other, until `input` ends.
pub fn serve(
    input: impl Read + Send + 'static,
    output: Box<dyn Write + Send>,
    machine: DebugHandle,
    halt: Box<dyn Halt>,
) {
    let Ok(mut messages) = Messages::new(input, output) else {
        log::warn!("there is no thread for gdb's messages");
        return;
    };
    let mut guest = Guest::new(machine, halt);
    while messages.next_client() {
        guest.attach();
        match GdbStub::new(Client(&mut messages)).run_blocking::<Loop<'_>>(&mut guest) {
            Ok(reason) => log::debug!("gdb's session is over: {reason:?}"),
            Err(error) => log::debug!("gdb's session is over: {error}"),
        }
        guest.detach();
        messages.hang_up();
    }
}

/// What gdbstub asks for while the guest runs.
struct Loop<'a>(PhantomData<&'a ()>);

impl<'a> BlockingEventLoop for Loop<'a> {
    type Target = Guest;
    type Connection = Client<'a>;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        guest: &mut Guest,
        client: &mut Client<'a>,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<TargetError, connection::Gone>>
    {
        loop {
            if let Some(stop) = guest.stopped() {
                return Ok(Event::TargetStopped(stop));
            }
            if client.0.wait().map_err(WaitForStopReasonError::Connection)? {
                let byte = client.read().map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
        }
    }

    fn on_interrupt(guest: &mut Guest) -> Result<Option<Self::StopReason>, TargetError> {
        guest.interrupt();
        Ok(Some(MultiThreadStopReason::Signal(Signal::SIGINT)))
    }
}

impl fmt::Debug for dyn Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halt").finish_non_exhaustive()
    }
}
