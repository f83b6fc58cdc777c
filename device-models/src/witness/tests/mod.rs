mod bounds;
mod buffers;
mod interleavings;
mod reference;
mod rules;

use guest_protocol::witness::{Kind as What, flags, record};

use super::{Builder, Context, Direction, Judgement, Record, Witness};
use crate::AddressRange;
use crate::fabric::{FunctionId, Kind};

const READ: Kind = Kind::MemoryRead;
const WRITE: Kind = Kind::MemoryWrite;
const A: FunctionId = FunctionId(0);
const B: FunctionId = FunctionId(1);

/// A record, field by field. The numbers of function and BDF are the same here.
#[derive(Debug, Clone, Copy)]
struct Said(Builder);

fn say(kind: What, ticket: u64) -> Said {
    Said(Builder::new(kind).put_u64(record::TICKET, ticket).put_u64(record::TIME, ticket * 1000))
}

impl Said {
    fn at(self, address: u64, length: u64) -> Self {
        Self(self.0.put_u64(record::ADDRESS, address).put_u64(record::LENGTH, length))
    }

    fn to(self, direction: Direction) -> Self {
        let code = match direction {
            Direction::Both => 0,
            Direction::ToDevice => 1,
            Direction::FromDevice => 2,
            Direction::None => 3,
        };
        Self(self.0.put(record::DIRECTION, &[code]))
    }

    fn flags(self, flags: u8) -> Self {
        Self(self.0.put(record::FLAGS, &[flags]))
    }

    fn group(self, group: u64) -> Self {
        Self(self.0.put_u64(record::GROUP, group))
    }

    fn of(self, function: FunctionId) -> Self {
        Self(self.0.put(record::FUNCTION, &u32::from(function.0).to_le_bytes()))
    }

    fn buffer(self, buffer: u64) -> Self {
        Self(self.0.put_u64(record::BUFFER, buffer))
    }

    fn pid(self, pid: u32) -> Self {
        Self(self.0.put(record::PID, &pid.to_le_bytes()).put(record::TASK, b"insmod"))
    }
}

/// A witness of two functions whose drivers have been bound.
struct Rig {
    witness: Witness,
    translated: bool,
    /// Both are in one domain.
    together: bool,
}

impl Rig {
    fn new(translated: bool) -> Self {
        let mut witness = Witness::new(2);
        witness.attach(0, None);
        let mut rig = Self { witness, translated, together: false };
        for function in [A, B] {
            rig.hear(say(What::Bind, 0).of(function));
        }
        rig
    }

    fn hear(&mut self, said: Said) {
        let record = Record::of(&said.0.bytes());
        let function = record.bdf().filter(|bdf| bdf.0 < 2).map(|bdf| FunctionId(bdf.0));
        let together = self.together;
        let mut context =
            Context { function, translated: self.translated, is_with: &mut |_| together };
        self.witness.apply(&record, &mut context);
    }

    fn judge(&mut self, kind: Kind, begun: u64, at: u64, length: u64) -> Judgement {
        let range = AddressRange::new(at, length).unwrap();
        self.witness.judge(A, kind, begun, range, 1)
    }

    fn access(&mut self, kind: Kind, at: u64, length: u64) -> Judgement {
        self.judge(kind, at, at, length)
    }

    fn explain(&mut self, kind: Kind, begun: u64, at: u64, length: u64) -> (String, String) {
        let Judgement::Wrong(mistake) = self.judge(kind, begun, at, length) else {
            return (String::new(), "fine".to_owned());
        };
        let explained = self.witness.explain(A, kind, begun, &mistake, 1_000_000);
        (explained.class.name().to_owned(), explained.text)
    }

    fn class(&mut self, kind: Kind, begun: u64, at: u64, length: u64) -> String {
        self.explain(kind, begun, at, length).0
    }
}
