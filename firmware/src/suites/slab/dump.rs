//! The report of the caches, read back.

use super::PLAIN;
use crate::memory::named::Named;
use crate::report::{Outcome, diagnostic};
use crate::{check, check_ok};
use core::fmt::Write;
use hal::mm::{self, CacheInfo, Gfp, KmemCache};

/// A line of the report.
type Line = heapless::String<160>;

/// The number after `key=` in a line.
fn number(line: &str, key: &str) -> Option<u32> {
    let mut words = line.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// What contradicts itself in a line of the report.
fn contradiction(line: &str) -> Option<&'static str> {
    let read = |key| number(line, key);
    let (Some(out), Some(size), Some(per_slab), Some(slabs), Some(empty)) = (
        read("objects_out"),
        read("objsize"),
        read("objperslab"),
        read("slabs"),
        read("empty"),
    ) else {
        return Some("a column is missing");
    };
    if size == 0 || per_slab == 0 {
        return Some("objects without size or place");
    }
    if empty > slabs {
        return Some("more empty slabs than slabs");
    }
    if out > (slabs - empty) * per_slab {
        return Some("more objects than fit");
    }
    (out < slabs - empty).then_some("slabs in use without objects")
}

fn line_of(info: &CacheInfo) -> Line {
    let mut line = Line::new();
    // A line that is too long is cut, and lacks its last column.
    let _ = write!(line, "{info}");
    line
}

pub(super) fn consistent() -> Outcome {
    const HELD: usize = 10;
    let held: [_; HELD] = core::array::from_fn(|_| Named::alloc(&PLAIN, Gfp::KERNEL));
    for object in &held {
        if let Err(error) = object {
            check_ok!(Err::<(), _>(*error));
        }
    }
    let (mut caches, mut written) = (0, 0);
    let general = mm::kmalloc_caches().caches();
    for info in general.chain(mm::named_caches().map(KmemCache::info)) {
        let line = line_of(&info);
        let wrong = contradiction(&line);
        check!(wrong.is_none(), "{line}: {wrong:?}");
        caches += 1;
        if info.slabs != 0 {
            diagnostic(format_args!("{line}"));
            written += 1;
        }
    }
    let line = line_of(&PLAIN.info());
    let out = number(&line, "objects_out");
    check!(out >= Some(HELD as u32), "{out:?} objects, {HELD} in use");
    diagnostic(format_args!("{written} of {caches} caches have slabs"));
    Ok(())
}

pub(super) fn consistent_planted() -> Outcome {
    let good = PLAIN.info();
    check!(contradiction(&line_of(&good)).is_none(), "{good}");
    let empty_slabs = good.slabs + 1;
    let places = good.slabs * good.objects_per_slab;
    let plants = [
        CacheInfo {
            empty_slabs,
            ..good
        },
        CacheInfo {
            objects_out: places + 1,
            ..good
        },
        CacheInfo {
            slabs: good.slabs + places + 1,
            ..good
        },
        CacheInfo {
            object_size: 0,
            ..good
        },
    ];
    for plant in plants {
        check!(contradiction(&line_of(&plant)).is_some(), "{plant} passes");
    }
    check!(
        contradiction("plain slabs=1").is_some(),
        "half a line passes"
    );
    Ok(())
}
