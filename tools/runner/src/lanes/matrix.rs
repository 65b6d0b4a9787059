//! The boot matrix.

use super::Boot;

/// One machine of the boot matrix, and what the firmware must find of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) el: u32,
    pub(super) image: &'static str,
    pub(super) gic: u32,
    mem: &'static str,
    smp: u32,
    pub(super) cpu: &'static str,
    pub(super) dtb: &'static str,
    pub(super) filled: bool,
    pub(super) found: Found,
}

/// What the report says of the machine. Without a tree that can be believed it is the RAM that every
/// such board has, and one core, or at EL3, where all of them enter together, those there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) mib: u64,
    pub(super) cores: u32,
}

const fn row(
    (el, image, gic): (u32, &'static str, u32),
    (mem, smp, cpu): (&'static str, u32, &'static str),
    (dtb, filled): (&'static str, bool),
    (mib, cores): (u64, u32),
) -> Row {
    Row {
        el,
        image,
        gic,
        mem,
        smp,
        cpu,
        dtb,
        filled,
        found: Found { mib, cores },
    }
}

/// Every pair of values of two columns that can be had is in some row; a test checks it. What counts
/// of cores and RAM is what the firmware finds.
///
/// A raw image always gets a tree and never starts at EL3, and filling 8 GiB takes too long.
pub(super) const MATRIX: [Row; 17] = [
    row(
        (1, "elf", 2),
        ("1G", 8, "cortex-a76"),
        ("auto", false),
        (1024, 8),
    ),
    row(
        (1, "elf", 3),
        ("1G", 2, "cortex-a76"),
        ("none", true),
        (64, 1),
    ),
    row((1, "elf", 3), ("64M", 8, "max"), ("lying", true), (64, 1)),
    row(
        (1, "raw", 2),
        ("1G", 2, "cortex-a53"),
        ("auto", false),
        (1024, 2),
    ),
    row(
        (1, "raw", 2),
        ("8G", 2, "cortex-a53"),
        ("auto", false),
        (8192, 2),
    ),
    row(
        (1, "raw", 3),
        ("8G", 8, "cortex-a72"),
        ("auto", false),
        (8192, 8),
    ),
    row(
        (2, "elf", 3),
        ("8G", 8, "cortex-a53"),
        ("none", false),
        (64, 1),
    ),
    row(
        (2, "elf", 3),
        ("1G", 2, "cortex-a72"),
        ("truncated", true),
        (64, 1),
    ),
    row(
        (2, "raw", 2),
        ("64M", 8, "cortex-a76"),
        ("auto", true),
        (64, 8),
    ),
    row(
        (2, "raw", 2),
        ("8G", 1, "cortex-a76"),
        ("auto", false),
        (8192, 1),
    ),
    row((2, "raw", 3), ("1G", 2, "max"), ("auto", true), (1024, 2)),
    row(
        (3, "elf", 2),
        ("64M", 2, "cortex-a72"),
        ("none", true),
        (64, 2),
    ),
    row(
        (3, "elf", 2),
        ("1G", 2, "cortex-a76"),
        ("lying", false),
        (64, 2),
    ),
    row((3, "elf", 2), ("1G", 8, "max"), ("none", true), (64, 8)),
    row(
        (3, "elf", 3),
        ("1G", 1, "cortex-a72"),
        ("auto", false),
        (1024, 1),
    ),
    row(
        (3, "elf", 3),
        ("64M", 8, "cortex-a53"),
        ("truncated", true),
        (64, 8),
    ),
    row((3, "elf", 3), ("8G", 8, "max"), ("auto", false), (8192, 8)),
];

/// The suites the rows with a command line take turns to run, so that each boot is quick.
const MATRIX_SUITES: [&str; 14] = [
    "boot", "mmu", "pages", "gfp", "zones", "kmalloc", "vmalloc", "kvmalloc", "cma", "reclaim",
    "ioremap", "alloc", "coherent", "fw_cfg",
];

/// Where virt's RAM starts.
const VIRT_RAM: u64 = 1 << 30;

pub(super) fn matrix() -> Vec<Boot> {
    let mut boots: Vec<_> = (0..).zip(&MATRIX).map(|(i, row)| row.boot(i)).collect();
    let settings = [("BOARD", "rpi4"), ("DTB", "none")];
    // Without a tree the Pi's other cores are known to wait in the firmware's spin table.
    let without_tree = Boot::new("rpi4 without a tree", &settings);
    boots.push(without_tree.says([cores_line(4)]));
    boots
}

impl Found {
    /// The lines of the report that say so.
    fn lines(self) -> [String; 2] {
        let end = VIRT_RAM + (self.mib << 20);
        let ram = format!("# ram {VIRT_RAM:#x}..{end:#x} ({} MiB)", self.mib);
        [ram, cores_line(self.cores)]
    }
}

/// The line of the report that says how many cores run.
pub(super) fn cores_line(cores: u32) -> String {
    format!("# cores online={cores}")
}

impl Row {
    fn boot(&self, index: usize) -> Boot {
        let Self {
            el,
            image,
            gic,
            mem,
            smp,
            cpu,
            dtb,
            filled,
            found,
        } = self;
        let level = match el {
            1 => "",
            2 => ",virtualization=on",
            _ => ",secure=on",
        };
        let suite = match *dtb {
            "auto" | "lying" => format!("suite={}", MATRIX_SUITES[index % MATRIX_SUITES.len()]),
            _ => String::new(),
        };
        let ram = if *filled { "on" } else { "off" };
        Boot::new(
            format!("EL{el} {image} GICv{gic} {mem} smp={smp} {cpu} dtb={dtb} fill={ram} {suite}"),
            &[
                ("IMAGE", image),
                ("MEM", mem),
                ("SMP", &smp.to_string()),
                ("DTB", dtb),
                ("RAMFILL", ram),
                ("CMDLINE", &suite),
                (
                    "QEMU_EXTRA",
                    &format!("-cpu {cpu} -machine gic-version={gic}{level}"),
                ),
            ],
        )
        .says(found.lines())
    }
}
