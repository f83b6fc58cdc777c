//! A file that goes into guest memory, wherever its bytes are.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryMmap, ReadVolatile, VolatileMemoryError, bitmap::BitmapSlice,
};

/// A kernel or an initramfs: an open file, or bytes.
#[derive(Debug)]
pub enum Image {
    /// An open file; only what is needed is read.
    File(File),
    /// Bytes in memory.
    Bytes(Cursor<Vec<u8>>),
}

impl From<File> for Image {
    fn from(file: File) -> Self {
        Self::File(file)
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cursor::new(bytes))
    }
}

impl Image {
    /// Size in bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.get_ref().len() as u64),
        }
    }

    /// Whether there is nothing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Copies the first `size` bytes into guest memory, straight from the file.
    pub(super) fn copy_to(
        &mut self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        size: u64,
    ) -> io::Result<()> {
        self.seek(SeekFrom::Start(0))?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        memory.read_exact_volatile_from(address, self, size).map_err(io::Error::other)
    }
}

impl Read for Image {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Image {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Bytes(bytes) => bytes.seek(to),
        }
    }
}

impl ReadVolatile for Image {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buffer: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        match self {
            Self::File(file) => file.read_volatile(buffer),
            Self::Bytes(bytes) => bytes.read_volatile(buffer),
        }
    }
}
