//! Mappings that are in each other's way.

use super::*;

#[test]
fn lines_are_shared_if_a_device_that_does_not_snoop_writes_one() {
    let (written, read) = (
        call(Kind::Single, 0, 32, FromDevice),
        call(Kind::Single, 32, 32, ToDevice),
    );
    for (first, second, snooped, expected) in [
        (written, read, false, Some(Check::Overlap)),
        (read, written, false, Some(Check::Overlap)),
        (read, read, false, None),
        (written, call(Kind::Single, 64, 32, FromDevice), false, None),
        (written, written, true, Some(Check::OverlapSnooped)),
        (read, read, true, None),
    ] {
        let mut checker = checker(2);
        let how = |call| Lent {
            maintained: !snooped,
            ..lent(call)
        };
        assert_eq!(kinds(&checker.map(NET, first, &how(&first))), []);
        let found = checker.map(DISK, second, &how(&second));
        assert!(kinds(&found).into_iter().eq(expected), "{found:?}");
        assert_eq!(
            found.first().and_then(|report| report.mapped),
            expected.map(|_| first)
        );
    }
    assert!(Check::OverlapSnooped.is_info() && !Check::Overlap.is_info());
}

/// Two buffers of copies that have a byte in common, and a line only; one of them of the buffer as it
/// is.
#[test]
fn copies_share_bytes_and_not_lines() {
    for (direction, at, copied, snooped, expected) in [
        (FromDevice, 31, [true, true], false, Some(Check::Overlap)),
        (FromDevice, 31, [true, true], true, Some(Check::Overlap)),
        (FromDevice, 31, [false, true], false, Some(Check::Overlap)),
        (FromDevice, 31, [true, false], false, Some(Check::Overlap)),
        (FromDevice, 32, [true, true], false, None),
        (FromDevice, 32, [false, true], false, None),
        (FromDevice, 32, [false, false], false, Some(Check::Overlap)),
        (ToDevice, 31, [true, true], false, None),
    ] {
        let mut checker = checker(2);
        let how = |call: &Call, slots: u64, is_copied| {
            let mut call = *call;
            let memory = lent(&call).memory;
            if is_copied {
                // The device is told of slots.
                call.addr = DmaAddr::new(BUS + slots);
            }
            let lent = Lent {
                memory,
                is_copied,
                maintained: !snooped,
                ..lent(&call)
            };
            (call, lent)
        };
        let (first, of_first) = how(&call(Kind::Single, 0, 32, direction), 1 << 20, copied[0]);
        let (second, of_second) = how(&call(Kind::Single, at, 32, ToDevice), 1 << 21, copied[1]);
        assert_eq!(kinds(&checker.map(NET, first, &of_first)), []);
        let found = checker.map(DISK, second, &of_second);
        assert!(
            kinds(&found).into_iter().eq(expected),
            "{direction} {at} {copied:?}: {found:?}"
        );
        checker.unmap(DISK, second);
        checker.unmap(NET, first);
        assert_eq!(checker.live(), 0);
    }
}
