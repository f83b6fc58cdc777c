//! The serial console: a 16550A by `vm-superio` with its interrupt wired to the in-kernel I/O APIC.
//!
//! Neither direction ever makes a vCPU wait for the host: output goes through a bounded queue to a thread,
//! input comes from a bounded queue that is refilled as the guest reads.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peerdma_support::warnings::Warnings;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::MachineError;
use super::layout;

/// Output that waits for a slow sink; what comes beyond is dropped and counted.
const OUTPUT_CAPACITY: usize = 1 << 20;
/// Input that waits for a slow guest; the source learns how much was taken.
const INPUT_CAPACITY: usize = 64 << 10;
/// How long the writer lets output gather: the guest writes byte by byte, a system call for each is dear.
const GATHER: Duration = Duration::from_millis(2);

/// An edge on an interrupt line, through an irqfd.
#[derive(Debug)]
pub(crate) struct IrqLine(EventFd);

impl IrqLine {
    pub(crate) fn new() -> Result<Self, MachineError> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .map(Self)
            .map_err(MachineError::host("make an event for the serial port"))
    }

    pub(crate) fn event(&self) -> &EventFd {
        &self.0
    }
}

impl Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        match self.0.write(1) {
            // The counter is full: the edge is pending anyway.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    dropped: u64,
    closed: bool,
    drained: bool,
}

#[derive(Debug, Default)]
struct Output {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The guest's end of the output queue.
#[derive(Debug)]
struct OutputEnd(Arc<Output>);

impl Write for OutputEnd {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.bytes.is_empty();
        let room = OUTPUT_CAPACITY - queue.bytes.len();
        let taken = room.min(data.len());
        queue.bytes.extend(data.iter().take(taken));
        queue.dropped += (data.len() - taken) as u64;
        if was_empty {
            self.0.changed.notify_all();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct State {
    uart: Serial<IrqLine, NoEvents, OutputEnd>,
    input: VecDeque<u8>,
    errors: Warnings,
}

/// COM1.
pub(crate) struct SerialPort {
    state: Mutex<State>,
    output: Arc<Output>,
}

impl fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SerialPort").finish_non_exhaustive()
    }
}

impl SerialPort {
    /// A port whose output goes to `sink`, on a thread of its own.
    pub(crate) fn new(irq: IrqLine, sink: Box<dyn Write + Send>) -> Result<Self, MachineError> {
        let output = Arc::new(Output::default());
        let uart = Serial::new(irq, OutputEnd(Arc::clone(&output)));
        let end = Arc::clone(&output);
        // Detached: a sink that blocks for ever must not keep the machine from ending. See `finish`.
        std::thread::Builder::new()
            .name("serial".into())
            .spawn(move || write_out(&end, sink))
            .map_err(MachineError::host("start the serial port's thread"))?;
        let errors = Warnings::of("errors of the serial port");
        Ok(Self { state: Mutex::new(State { uart, input: VecDeque::new(), errors }), output })
    }

    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        let offset = offset(port);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in data {
            *byte = state.uart.read(offset);
            state.refill();
        }
    }

    pub(crate) fn write(&self, port: u16, data: &[u8]) {
        let offset = offset(port);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in data {
            if let Err(error) = state.uart.write(offset, byte) {
                state.errors.warn(format_args!("serial port: {error:?}"));
            }
        }
        state.refill();
    }

    /// Takes as many bytes of input as there is room for; the guest finds them in order.
    pub(crate) fn input(&self, data: &[u8]) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = data.len().min(INPUT_CAPACITY - state.input.len());
        state.input.extend(data.iter().take(taken));
        state.refill();
        taken
    }

    /// Waits until the sink has taken all output, at most for `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut queue = self.output.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        self.output.changed.notify_all();
        while !queue.drained {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!(
                    "the console's sink does not take its output; {} bytes are lost",
                    queue.bytes.len()
                );
                return;
            }
            queue = self
                .output
                .changed
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if queue.dropped > 0 {
            log::warn!("the console's sink was too slow; {} bytes were lost", queue.dropped);
        }
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        // Lets the writer's thread go.
        self.output.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.output.changed.notify_all();
    }
}

impl State {
    /// Moves waiting input into the UART's FIFO as far as there is room.
    fn refill(&mut self) {
        while !self.input.is_empty() && self.uart.fifo_capacity() > 0 {
            let (head, _) = self.input.as_slices();
            match self.uart.enqueue_raw_bytes(head) {
                // In loopback mode nothing is taken; it stays waiting.
                Ok(0) => return,
                Ok(taken) => drop(self.input.drain(..taken)),
                Err(error) => {
                    self.errors.warn(format_args!("serial port: {error:?}"));
                    return;
                }
            }
        }
    }
}

fn offset(port: u16) -> u8 {
    u8::try_from(port.saturating_sub(layout::COM1.start)).unwrap_or(u8::MAX)
}

fn write_out(output: &Output, mut sink: Box<dyn Write + Send>) {
    loop {
        let (bytes, closed) = {
            let mut queue = output.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.bytes.is_empty() && !queue.closed {
                queue = output.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if !queue.closed {
                drop(queue);
                std::thread::sleep(GATHER);
                queue = output.queue.lock().unwrap_or_else(PoisonError::into_inner);
            }
            (std::mem::take(&mut queue.bytes), queue.closed)
        };
        let (head, tail) = bytes.as_slices();
        let written =
            sink.write_all(head).and_then(|()| sink.write_all(tail)).and_then(|()| sink.flush());
        if let Err(error) = written {
            log::debug!("the console's sink is gone: {error}");
            sink = Box::new(io::sink());
        }
        let mut queue = output.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if closed && queue.bytes.is_empty() {
            queue.drained = true;
            output.changed.notify_all();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Channel(mpsc::Sender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.send(data.to_vec()).map_err(io::Error::other)?;
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Stuck;

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_secs(60));
            Ok(1)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_arrives_whole_and_in_order() {
        let (sender, receiver) = mpsc::channel();
        let port = SerialPort::new(IrqLine::new().unwrap(), Box::new(Channel(sender))).unwrap();
        for byte in b"hello, " {
            port.write(layout::COM1.start, &[*byte]);
        }
        port.write(layout::COM1.start, b"world");
        port.finish(Duration::from_secs(10));
        let text: Vec<u8> = receiver.try_iter().flatten().collect();
        assert_eq!(text, b"hello, world");
    }

    #[test]
    fn a_stuck_sink_neither_blocks_the_guest_nor_the_end() {
        let port = SerialPort::new(IrqLine::new().unwrap(), Box::new(Stuck)).unwrap();
        let block = vec![b'x'; 64 << 10];
        for _ in 0..20 {
            port.write(layout::COM1.start, &block);
        }
        port.finish(Duration::from_millis(10));
        assert!(port.output.queue.lock().unwrap().bytes.len() <= OUTPUT_CAPACITY);
    }

    #[test]
    fn more_input_than_the_fifo_holds_comes_through() {
        let port = SerialPort::new(IrqLine::new().unwrap(), Box::new(io::sink())).unwrap();
        let text: Vec<u8> = (0..1000_u16).map(|i| i.to_le_bytes()[0]).collect();
        assert_eq!(port.input(&text), text.len());
        let mut got = Vec::new();
        let line_status = layout::COM1.start + 5;
        loop {
            let mut status = [0];
            port.read(line_status, &mut status);
            if status[0] & 1 == 0 {
                break;
            }
            let mut byte = [0];
            port.read(layout::COM1.start, &mut byte);
            got.push(byte[0]);
        }
        assert_eq!(got, text);
        assert_eq!(port.input(&vec![0; INPUT_CAPACITY + 100]) + 64, INPUT_CAPACITY + 64);
    }
}
