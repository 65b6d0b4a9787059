use super::*;
use crate::mm::charge_to;
use crate::mm::testing::{PageCache, normal_machine};

#[test]
fn a_report_names_the_request_the_zones_the_owners_and_the_shrinkers() {
    static OWNER: Owner = Owner::new("reporter", 1 << 20);
    let (pages, _) = normal_machine(16);
    PageCache::register(pages, "pagecache", Gfp::empty(), 0);
    let block = pages.alloc_pages(Gfp::KERNEL, 0).unwrap();
    let scope = charge_to(&OWNER).unwrap();
    let report = FailureReport::new(pages, Gfp::KERNEL, 3, Cause::Failure).to_string();
    drop(scope);
    let mut lines = report.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("page allocation failure: order:3, mode:0xcc0(GFP_KERNEL), a task on"),
        "{first}"
    );
    assert!(first.ends_with(", for reporter"), "{first}");
    assert_eq!(lines.next(), Some("Mem-Info:"));
    assert_eq!(
        lines.next(),
        Some("NORMAL free:16380kB min:512kB low:640kB high:768kB managed:16384kB")
    );
    assert_eq!(
        lines.next(),
        Some("NORMAL free_highatomic:0kB free_cma:0kB local_pcp:0kB")
    );
    assert_eq!(lines.next(), Some("NORMAL lowmem_reserve[]: 0 0 0"));
    // One page split off a block of 4 MiB leaves one block of each smaller order.
    assert_eq!(
        lines.next(),
        Some(
            "NORMAL: 1*4kB 1*8kB 1*16kB 1*32kB 1*64kB 1*128kB 1*256kB 1*512kB 1*1024kB 1*2048kB \
             3*4096kB = 16380kB"
        )
    );
    assert!(report.contains("\nowner reporter used:0kB limit:1024kB refused:0\n"));
    assert!(report.contains("\nreclaim woken:0 "));
    assert!(
        report.ends_with("\nshrinker pagecache calls:0 freed:0\n"),
        "{report}"
    );
    // SAFETY: the block is the test's.
    unsafe { pages.free_pages(block, 0) }.unwrap();
    let report = FailureReport::new(pages, Gfp::ATOMIC, 0, Cause::OutOfMemory).to_string();
    assert!(report.starts_with("out of memory: page allocation failure: order:0, mode:0x820"));
}

#[test]
fn a_burst_of_reports_is_cut() {
    let mut limit = RateLimit::new();
    for _ in 0..BURST {
        assert_eq!(limit.allows(1000, 50), Some(0));
    }
    assert_eq!(limit.allows(1001, 50), None);
    assert_eq!(limit.allows(1049, 50), None);
    assert_eq!(limit.allows(1050, 50), Some(2));
    assert_eq!(limit.allows(1050, 50), Some(0));
}
