//! How the backing file of a dataset is attached: with direct I/O, and with which block size.

use std::fs::File;

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::loop_device::Attachment;

/// The smallest logical block of a block device, in bytes.
const SMALLEST: u32 = 512;
/// The largest one that every kernel's loop devices can have, and the block size of the file systems that are made here.
pub(super) const LARGEST: u32 = 4096;
/// `STATX_DIOALIGN` (Linux 6.1).
const DIOALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2000);

/// Returns how a file is attached. `file_system_block` is the block size of the file system in it.
///
/// The logical block of the device is the smallest one in which the file system below can read and write without its page
/// cache, so that old programs that align to 512 bytes go on where that is possible; but never larger than a block of the
/// file system, which could not be mounted otherwise.
pub(super) fn attachment(file: &File, file_system_block: u32, direct: bool) -> Attachment {
    let needed = if direct { alignment(file) } else { None };
    let needed = needed.unwrap_or(SMALLEST).max(SMALLEST);
    let largest = file_system_block.min(LARGEST);
    Attachment {
        // Of a file system below that needs more, the kernel makes it buffered.
        block_size: if needed <= largest { needed } else { SMALLEST },
        direct,
    }
}

/// Returns the unit in which a file is read and written directly, in bytes; `None` where the kernel or the file system does
/// not say, or cannot.
fn alignment(file: &File) -> Option<u32> {
    let status = statx(file, "", AtFlags::EMPTY_PATH, DIOALIGN).ok()?;
    let said = status.stx_mask & DIOALIGN.bits() != 0;
    (said && status.stx_dio_offset_align.is_power_of_two()).then_some(status.stx_dio_offset_align)
}
