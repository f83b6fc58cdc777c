//! Taking big-endian numbers, bytes and text from the front of an entry.

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// It has another layout.
    #[error("it has version {0}, and this program reads version {version}", version = super::entry::VERSION)]
    Version(u8),
    /// It ends before all that must be in it.
    #[error("it is too short")]
    TooShort,
    /// Something comes behind its end.
    #[error("it is too long")]
    TooLong,
    /// A text is not UTF-8.
    #[error("a text in it is not UTF-8")]
    Text,
    /// A number stands for nothing.
    #[error("{0} is not one that exists")]
    Field(&'static str),
    /// The TLP header is not one that this says.
    #[error("its TLP header does not fit to it")]
    Tlp,
    /// The number of TLPs does not follow from address, length and limit.
    #[error("its TLPs do not fit to its length")]
    Run,
}

/// What is left of an entry.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Invalid> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Invalid::TooShort)?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (front, rest) = self.0.split_first_chunk().ok_or(Invalid::TooShort)?;
        self.0 = rest;
        Ok(*front)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Invalid> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Invalid> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Invalid> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Invalid> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The number of a function, in four bytes.
    pub(crate) fn number(&mut self) -> Result<usize, Invalid> {
        usize::try_from(self.u32()?).map_err(|_| Invalid::Field("a function's number"))
    }

    /// A requester ID, in four bytes.
    pub(crate) fn requester(&mut self) -> Result<u16, Invalid> {
        u16::try_from(self.u32()?).map_err(|_| Invalid::Field("a requester ID"))
    }

    /// A text behind its length in two bytes.
    pub(crate) fn text(&mut self) -> Result<String, Invalid> {
        let length = self.u16()?;
        let bytes = self.take(usize::from(length))?;
        Ok(std::str::from_utf8(bytes).map_err(|_| Invalid::Text)?.to_owned())
    }

    /// All that is left, as text.
    pub(crate) fn rest_text(&mut self) -> Result<String, Invalid> {
        Ok(std::str::from_utf8(self.rest()).map_err(|_| Invalid::Text)?.to_owned())
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
