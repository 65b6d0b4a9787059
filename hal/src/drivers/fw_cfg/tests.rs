use super::*;
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::arch::trace::{self, Op, record_during};
use crate::dma::engine::tests::identity_device;
use crate::dma::sg::ScatterEntry;
use crate::dma::streaming::{map_shared, map_slice};
use crate::dma::{DmaMask, ScatterList};
use crate::layout::{self, host};
use std::sync::{Arc, Mutex};

/// What the model does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Signature,
    Item,
    NoDma,
    /// Transfers of so many bytes never end.
    Hangs(u32),
    /// The directory promises so many files.
    Directory(u32),
}

/// A model of the device, from QEMU's specification.
struct Model {
    fault: Fault,
    files: Vec<(&'static str, Vec<u8>)>,
    item: u16,
    offset: usize,
    /// Control word and length of each descriptor.
    log: Vec<(u32, u32)>,
    /// The descriptor of a transfer that hangs.
    hung: Option<u64>,
}

const FIRST_FILE: u16 = 0x20;

fn bytes_at(addr: u64, len: usize) -> &'static mut [u8] {
    let start = layout::phys_to_virt(PhysAddr::new(addr)).as_ptr();
    // SAFETY: the driver's page and the test's buffers are pretended RAM, and the driver waits.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}

impl Model {
    fn item(&self) -> Vec<u8> {
        match self.item {
            0 if self.fault == Fault::Item => b"EMUQ".to_vec(),
            0 => b"QEMU".to_vec(),
            1 if self.fault == Fault::NoDma => vec![1, 0, 0, 0],
            1 => vec![3, 0, 0, 0],
            0x19 => {
                let count = match self.fault {
                    Fault::Directory(count) => count,
                    _ => self.files.len() as u32,
                };
                let mut bytes = count.to_be_bytes().to_vec();
                for (number, (name, content)) in (FIRST_FILE..).zip(&self.files) {
                    let mut padded = name.as_bytes().to_vec();
                    padded.resize(56, 0);
                    bytes.extend((content.len() as u32).to_be_bytes());
                    bytes.extend(number.to_be_bytes());
                    bytes.extend([0xEE; 2]);
                    bytes.extend(padded);
                }
                bytes
            }
            other => self.files[usize::from(other - FIRST_FILE)].1.clone(),
        }
    }

    fn run(&mut self, descriptor: u64) {
        let words = bytes_at(descriptor, 16);
        let word = |index: usize| u32::from_be_bytes(words[index..index + 4].try_into().unwrap());
        let (control, len) = (word(0), word(4));
        let addr = u64::from(word(8)) << 32 | u64::from(word(12));
        self.log.push((control, len));
        if self.fault == Fault::Hangs(len) {
            self.hung = Some(descriptor);
            return;
        }
        if control & 8 != 0 {
            (self.item, self.offset) = ((control >> 16) as u16, 0);
        }
        let mut ended = 0_u32;
        if control & 2 != 0 {
            let item = self.item();
            for (index, to) in bytes_at(addr, len as usize).iter_mut().enumerate() {
                *to = item.get(self.offset + index).copied().unwrap_or(0);
            }
        } else if control & 16 != 0 {
            ended = 1;
        }
        self.offset += len as usize;
        bytes_at(descriptor, 4).copy_from_slice(&ended.to_be_bytes());
    }
}

impl Model {
    /// Ends the transfer that hangs.
    fn end(&mut self, control: u32) {
        let descriptor = self.hung.take().unwrap();
        bytes_at(descriptor, 4).copy_from_slice(&control.to_be_bytes());
    }
}

#[derive(Clone)]
struct Io(Arc<Mutex<Model>>);

impl RegisterIo for Io {
    fn read32(&self, offset: usize) -> u32 {
        panic!("32-bit read of {offset:#x}")
    }

    fn write32(&self, offset: usize, _: u32) {
        panic!("32-bit write of {offset:#x}")
    }

    fn read64(&self, offset: usize) -> u64 {
        assert_eq!(offset, 0x10);
        match self.0.lock().unwrap().fault {
            Fault::Signature => 0,
            _ => u64::from_ne_bytes(*b"QEMU CFG"),
        }
    }

    fn write64(&self, offset: usize, value: u64) {
        assert_eq!(offset, 0x10);
        trace::assert_behind_barrier();
        self.0.lock().unwrap().run(value.swap_bytes());
    }
}

fn content() -> Vec<u8> {
    (0..10_000).map(|index| (index % 251) as u8 + 1).collect()
}

fn io(fault: Fault) -> Io {
    Io(Arc::new(Mutex::new(Model {
        fault,
        files: vec![
            ("etc/empty", vec![]),
            ("opt/test", content()),
            ("opt/test2", vec![7; 3]),
        ],
        item: 0,
        offset: 0,
        log: Vec::new(),
        hung: None,
    })))
}

fn pool() -> &'static CoherentPool {
    let frames = host::ram(4 * PAGE_SIZE as u64, 4 << 20);
    // SAFETY: the RAM was just handed out to this call alone; the host has no memory types.
    let pool = unsafe { CoherentPool::new(frames, layout::phys_to_virt(frames.start)) }.unwrap();
    Box::leak(Box::new(pool))
}

fn probe(io: &Io) -> Result<FwCfg<Io>, FwCfgError> {
    let device = identity_device(DmaMask::new::<64>());
    FwCfg::probe(io.clone(), device, pool(), Timer::new().unwrap())
}

fn buffer(len: usize) -> &'static mut [u8] {
    bytes_at(host::ram(len as u64, 4096).start.get(), len)
}

#[test]
fn a_file_is_found_and_read_at_any_offset() {
    let io = io(Fault::None);
    let fw_cfg = probe(&io).unwrap();
    let file = fw_cfg.find("opt/test").unwrap();
    assert_eq!(file.size(), 10_000);
    for (offset, len) in [(0, 10_000), (1, 1), (9_999, 1), (4_095, 4_098)] {
        let bytes = buffer(len);
        fw_cfg.read(&file, offset, bytes).unwrap();
        assert_eq!(bytes, &content()[offset as usize..][..len]);
    }
    let log = &io.0.lock().unwrap().log;
    let last = &log[log.len() - 2..];
    // Item 0x21 is selected and skipped into, then read.
    assert_eq!(last, [(0x0021_000C, 4_095), (0x2, 4_098)]);
}

#[test]
fn scattered_and_coherent_memory_is_read_run_by_run() {
    let io = io(Fault::None);
    let fw_cfg = probe(&io).unwrap();
    let file = fw_cfg.find("opt/test").unwrap();
    let ram = host::ram(4 * PAGE_SIZE as u64, 4096).start;
    let pages = [ram + 2 * PAGE_SIZE, ram, ram + PAGE_SIZE];
    let start = layout::VMALLOC.base;
    let page_of = |va: crate::addr::VirtAddr| {
        let offset = va.checked_sub(start)?;
        Some(pages[offset / PAGE_SIZE] + va.page_offset())
    };
    let mut room = [ScatterEntry::default(); 3];
    let (at, len) = (5, 2 * PAGE_SIZE + 90);
    // So that a run may end within a line.
    fw_cfg.device().set_coherent(true);
    let mut list = ScatterList::empty(&mut room);
    // SAFETY: nothing accesses the bytes but the model, by the frames, which are this test's.
    unsafe { list.push_raw((start + at).as_ptr(), len, page_of) }.unwrap();
    let mut mapping = list.map::<FromDevice>(fw_cfg.device()).unwrap();
    fw_cfg.read_into(&file, 3, &mut mapping).unwrap();
    mapping.unmap();
    let mut read = Vec::new();
    for page in pages {
        read.extend_from_slice(bytes_at(page.get(), PAGE_SIZE));
    }
    assert_eq!(read[at..at + len], content()[3..3 + len]);

    let mut coherent = pool().alloc(fw_cfg.device(), PAGE_SIZE).unwrap();
    let mut part = coherent.part_mut(7, 100).unwrap();
    fw_cfg.read_into(&file, 50, &mut part).unwrap();
    assert_eq!(coherent.as_slice()[7..107], content()[50..150]);
    assert!(coherent.as_slice()[107..].iter().all(|&byte| byte == 0));
}

#[test]
fn the_descriptor_is_complete_before_the_doorbell_and_the_bytes_come_after() {
    let io = io(Fault::None);
    let fw_cfg = probe(&io).unwrap();
    let file = fw_cfg.find("opt/test").unwrap();
    let bytes = buffer(128);
    let line = |index: usize| crate::addr::VirtAddr::from_ptr(&raw const bytes[0]) + index * 64;
    let lines = [line(0), line(1)];
    let (read, ops) = record_during(|| fw_cfg.read(&file, 0, bytes));
    assert_eq!(read, Ok(()));
    let [first, second] = lines;
    assert_eq!(
        ops,
        [
            Op::Clean(first),
            Op::Clean(second),
            Op::DsbSy,
            // Select and skip, then read.
            Op::DsbSy,
            Op::DmbOshld,
            Op::DsbSy,
            Op::DmbOshld,
            Op::Invalidate(first),
            Op::Invalidate(second),
            Op::DsbSy,
        ]
    );
}

#[test]
fn what_is_not_there_is_refused_before_the_device_starts() {
    let io = io(Fault::None);
    let fw_cfg = probe(&io).unwrap();
    let missing = fw_cfg.find("opt/tes").unwrap_err();
    assert_eq!(missing.to_string(), "fw_cfg has no file opt/tes");
    assert_eq!(
        fw_cfg.find(&"x".repeat(56)),
        Err(FwCfgError::NameLength(56))
    );
    let file = fw_cfg.find("opt/test").unwrap();
    let empty = fw_cfg.find("etc/empty").unwrap();
    let before = io.0.lock().unwrap().log.len();
    for (file, offset, len) in [
        (file, 0, 10_001),
        (file, 9_999, 2),
        (file, 10_000, 1),
        (file, u32::MAX, 1),
        (empty, 0, 1),
    ] {
        let size = file.size();
        assert_eq!(
            fw_cfg.read(&file, offset, buffer(len)),
            Err(FwCfgError::PastEnd { offset, len, size })
        );
    }
    assert_eq!(
        fw_cfg.read(&file, 0, &mut []),
        Err(DmaError::ZeroLength.into())
    );
    let other = identity_device(DmaMask::new::<64>());
    let mut foreign = map_slice::<FromDevice>(other, buffer(64)).unwrap();
    assert!(matches!(
        fw_cfg.read_into(&file, 0, &mut foreign),
        Err(FwCfgError::Dma(DmaError::OtherDevice { .. }))
    ));
    assert_eq!(io.0.lock().unwrap().log.len(), before);
}

#[test]
fn a_write_is_refused_by_the_device() {
    let fw_cfg = probe(&io(Fault::None)).unwrap();
    let file = fw_cfg.find("opt/test").unwrap();
    let source = map_shared(fw_cfg.device(), buffer(64)).unwrap();
    assert_eq!(
        fw_cfg.write_from(&file, 0, &source),
        Err(FwCfgError::Refused(1))
    );
    let bytes = buffer(10);
    assert_eq!(fw_cfg.read(&file, 0, bytes), Ok(()));
    assert_eq!(bytes, &content()[..10]);
}

#[test]
fn only_qemus_device_with_dma_probes() {
    let error = |fault| probe(&io(fault)).map(drop).unwrap_err();
    assert_eq!(error(Fault::Signature), FwCfgError::Signature(0));
    assert_eq!(error(Fault::Item), FwCfgError::NotQemu(*b"EMUQ"));
    assert_eq!(error(Fault::NoDma), FwCfgError::NoDma(1));
    assert_eq!(error(Fault::Hangs(4)), FwCfgError::Timeout);
    let fw_cfg = probe(&io(Fault::Directory(1 << 15))).unwrap();
    assert_eq!(fw_cfg.find("opt/test"), Err(FwCfgError::Directory(1 << 15)));
    // Entries that are not there read as zeros.
    let fw_cfg = probe(&io(Fault::Directory(9))).unwrap();
    assert!(matches!(fw_cfg.find("opt"), Err(FwCfgError::NotFound(_))));
    assert!(fw_cfg.find("opt/test2").is_ok());
}

#[test]
fn a_transfer_that_never_ends_does_not_give_the_buffer_back() {
    let io = io(Fault::Hangs(777));
    let fw_cfg = probe(&io).unwrap();
    let file = fw_cfg.find("opt/test").unwrap();
    let read = std::panic::AssertUnwindSafe(|| fw_cfg.read(&file, 0, buffer(777)));
    assert!(std::panic::catch_unwind(read).is_err());
    assert_eq!(fw_cfg.read(&file, 0, buffer(1)), Err(FwCfgError::Lost));
    assert_eq!(fw_cfg.find("opt/test"), Err(FwCfgError::Lost));
}

#[test]
fn a_transfer_that_ends_late_frees_the_device() {
    const HANGS: u32 = 777;
    // Done, and done with an error.
    for control in [0, CONTROL_ERROR] {
        let io = io(Fault::Hangs(HANGS));
        let fw_cfg = probe(&io).unwrap();
        let file = fw_cfg.find("opt/test").unwrap();
        let hangs = || fw_cfg.read(&file, 0, buffer(HANGS as usize));
        for _ in 0..2 {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(hangs)).is_err());
            let started = io.0.lock().unwrap().log.len();
            assert_eq!(fw_cfg.find("opt/test"), Err(FwCfgError::Lost));
            assert_eq!(io.0.lock().unwrap().log.len(), started, "nothing started");
            io.0.lock().unwrap().end(control);
            let bytes = buffer(10);
            assert_eq!(fw_cfg.read(&file, 0, bytes), Ok(()));
            assert_eq!(bytes, &content()[..10]);
        }
    }
}

#[test]
fn a_dropped_driver_keeps_the_page_of_a_transfer_that_has_not_ended() {
    for ends in [false, true] {
        let (io, pool) = (io(Fault::Hangs(777)), pool());
        let free = pool.free_pages();
        let device = identity_device(DmaMask::new::<64>());
        let fw_cfg = FwCfg::probe(io.clone(), device, pool, Timer::new().unwrap()).unwrap();
        let file = fw_cfg.find("opt/test").unwrap();
        let read = std::panic::AssertUnwindSafe(|| fw_cfg.read(&file, 0, buffer(777)));
        assert!(std::panic::catch_unwind(read).is_err());
        if ends {
            io.0.lock().unwrap().end(0);
        }
        drop(fw_cfg);
        assert_eq!(pool.free_pages() == free, ends);
    }
}
