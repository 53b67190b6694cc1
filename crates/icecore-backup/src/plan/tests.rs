use super::*;

fn mark(name: &str, n: u64) -> Mark {
    Mark { name: name.into(), guid: n, createtxg: n, creation: n, ivset: 0 }
}
fn ds(snaps: &[u64]) -> Dataset {
    Dataset {
        snapshots: snaps.iter().map(|n| mark(&format!("s{n}"), *n)).collect(),
        referenced: 100,
        ..Dataset::default()
    }
}
fn tree(d: Option<Dataset>) -> Tree {
    Tree { root: "p".into(), datasets: d.into_iter().collect() }
}
fn check(source: Dataset, destination: Option<Dataset>, expected: Result<Vec<&str>, Conflict>) {
    let plan = plan(&tree(Some(source)), &tree(destination));
    let got = match plan.conflicts.first() {
        Some((_, c)) => Err(c.clone()),
        None => Ok(plan.tasks[0].steps.iter().map(show).collect::<Vec<_>>()),
    };
    assert_eq!(got, expected.map(|v| v.into_iter().map(String::from).collect()));
}
fn show(s: &Step) -> String {
    match s {
        Step::Resume { token, to } => format!("resume {token} {}", to.name),
        Step::Full { to } => format!("full {to}"),
        Step::Incremental { from, to } => format!("{} {to}", from.typed()),
    }
}

fn half(to: u64, from: u64) -> Partial {
    Partial { token: "1-x".into(), to_name: format!("p@s{to}"), to, from, raw: false }
}
/// The plan of a run that takes a snapshot first.
fn check_pending(source: Dataset, destination: Option<Dataset>, expected: Result<Vec<&str>, Conflict>) {
    let source = tree(Some(source)).with_snapshot("new").datasets.remove(0);
    check(source, destination, expected);
}

#[test]
fn what_is_sent() {
    check(ds(&[1]), None, Ok(vec!["full s1"]));
    check(ds(&[1, 2, 3]), None, Ok(vec!["full s1", "@s1 s2", "@s2 s3"]));
    check(ds(&[1, 2, 3]), Some(ds(&[1, 2])), Ok(vec!["@s2 s3"]));
    check(ds(&[1, 2, 3]), Some(ds(&[1, 2, 3])), Ok(vec![]));
    check(ds(&[5]), Some(Dataset { empty: true, ..Dataset::default() }), Ok(vec!["full s5"]));
    let marked = Dataset { bookmarks: vec![mark("kept", 2)], ..ds(&[3, 4]) };
    check(marked.clone(), Some(ds(&[1, 2])), Ok(vec!["#kept s3", "@s3 s4"]));
    check(marked, Some(ds(&[2, 3])), Ok(vec!["@s3 s4"]));
    check(ds(&[1, 2]), Some(Dataset { partial: Some(half(2, 1)), ..ds(&[1]) }), Ok(vec!["resume 1-x s2"]));
    check(
        ds(&[1, 2, 3]),
        Some(Dataset { partial: Some(half(1, 0)), ..Dataset::default() }),
        Ok(vec!["resume 1-x s1", "@s1 s2", "@s2 s3"]),
    );
    let marked = Dataset { bookmarks: vec![mark("kept", 1)], ..ds(&[2]) };
    check(marked, Some(Dataset { partial: Some(half(2, 1)), ..ds(&[1]) }), Ok(vec!["resume 1-x s2"]));
}

#[test]
fn what_is_refused() {
    check(ds(&[]), None, Err(Conflict::NoSnapshot));
    check(
        ds(&[3]),
        Some(ds(&[1])),
        Err(Conflict::NoCommonBase { source: Some("s3".into()), destination: "s1".into() }),
    );
    check(
        ds(&[1, 2]),
        Some(Dataset { modified: true, ..ds(&[1]) }),
        Err(Conflict::DestinationModified { since: "s1".into() }),
    );
    check(
        ds(&[1, 3]),
        Some(ds(&[1, 2])),
        Err(Conflict::DestinationAhead { base: "s1".into(), newer: vec!["s2".into()] }),
    );
    check(ds(&[1]), Some(Dataset::default()), Err(Conflict::DestinationInTheWay));
    let enc = |d: Dataset, iv: u64| {
        let snapshots = d.snapshots.into_iter().map(|m| Mark { ivset: iv, ..m }).collect();
        Dataset { encrypted: true, snapshots, ..d }
    };
    check(enc(ds(&[1, 2]), 7), Some(ds(&[1])), Err(Conflict::RawOnPlain));
    check(ds(&[1, 2]), Some(enc(ds(&[1]), 7)), Err(Conflict::PlainOnRaw));
    check(enc(ds(&[1, 2]), 7), Some(enc(ds(&[1]), 8)), Err(Conflict::IvsetMismatch { base: "s1".into() }));
    check(enc(ds(&[1, 2]), 7), Some(enc(ds(&[1]), 7)), Ok(vec!["@s1 s2"]));
}

/// Over every small pair of histories: a base is common, the newest such, and nothing is planned that the
/// destination would have to lose something for.
#[test]
fn invariants_over_all_small_histories() {
    for src in 0..64_u32 {
        for dst in 0..64_u32 {
            let pick = |bits: u32| (0..6).filter(|i| bits >> i & 1 == 1).map(|i| i + 1).collect::<Vec<u64>>();
            let (s, d) = (ds(&pick(src)), ds(&pick(dst)));
            let plan = plan(&tree(Some(s.clone())), &tree(Some(d.clone())));
            for step in plan.tasks.iter().flat_map(|t| &t.steps) {
                if let Step::Incremental { from: Base::Snapshot(m), .. } = step
                    && !d.snapshots.is_empty()
                    && s.snapshots.iter().position(|x| x.guid == m.guid) == first_base(&plan, &s)
                {
                    assert!(d.snapshots.iter().any(|x| x.guid == m.guid));
                    assert!(d.snapshots.iter().all(|x| x.createtxg <= m.createtxg), "would lose a snapshot");
                    assert!(
                        !s.snapshots
                            .iter()
                            .any(|x| x.guid > m.guid && d.snapshots.iter().any(|y| y.guid == x.guid))
                    );
                }
            }
        }
    }
}

/// Where in the source's history the first increment of the plan starts.
fn first_base(plan: &Plan, source: &Dataset) -> Option<usize> {
    let first = plan.tasks.first()?.steps.first()?;
    let Step::Incremental { from, .. } = first else { return None };
    source.snapshots.iter().position(|x| x.guid == from.mark().guid)
}

/// A snapshot that is still to be taken is planned with: what it would make impossible is refused before.
#[test]
fn a_snapshot_to_come() {
    check_pending(ds(&[]), None, Ok(vec!["full new"]));
    check_pending(ds(&[1, 2]), Some(ds(&[1, 2])), Ok(vec!["@s2 new"]));
    check_pending(ds(&[1, 2]), Some(ds(&[1])), Ok(vec!["@s1 s2", "@s2 new"]));
    let cut = Dataset { partial: Some(half(2, 1)), ..ds(&[1]) };
    check_pending(ds(&[1, 2]), Some(cut), Ok(vec!["resume 1-x s2", "@s2 new"]));
    check_pending(
        ds(&[]),
        Some(ds(&[1])),
        Err(Conflict::NoCommonBase { source: None, destination: "s1".into() }),
    );
    // Up to date as it is, and no longer once the snapshot is there.
    check_pending(
        ds(&[1]),
        Some(ds(&[1, 2])),
        Err(Conflict::DestinationAhead { base: "s1".into(), newer: vec!["s2".into()] }),
    );
    check_pending(
        ds(&[1]),
        Some(Dataset { modified: true, ..ds(&[1]) }),
        Err(Conflict::DestinationModified { since: "s1".into() }),
    );
    check_pending(Dataset { encrypted: true, ..ds(&[]) }, Some(ds(&[1])), Err(Conflict::RawOnPlain));
    let mut taken = ds(&[1, 2]);
    taken.snapshots[0].name = "new".into();
    check_pending(ds(&[2]), Some(taken), Err(Conflict::NameTaken { name: "new".into() }));
    let plan = plan(&tree(Some(ds(&[1]))).with_snapshot("new"), &tree(Some(ds(&[1]))));
    assert!(plan.tasks[0].pending && !plan.is_up_to_date());
}

/// Half a stream that the source cannot go on with is refused, with the command that drops it.
#[test]
fn halves_of_what_is_gone() {
    let over = |source: Dataset, partial: Partial| {
        let plan = plan(&tree(Some(source)), &tree(Some(Dataset { partial: Some(partial), ..ds(&[1]) })));
        assert!(plan.tasks.is_empty());
        plan.conflicts[0].1.describe("bk/main")
    };
    let text = over(ds(&[1, 3]), half(2, 1));
    assert!(text.contains("half a stream of p@s2") && text.contains("no such snapshot"), "{text}");
    assert!(text.contains("'zfs receive -A bk/main'"), "{text}");
    assert!(over(ds(&[2]), half(2, 1)).contains("that it builds on"));
    assert!(over(Dataset { encrypted: true, ..ds(&[1, 2]) }, half(2, 1)).contains("without -w"));
    assert!(over(ds(&[1]).clone(), Partial::of("1-rubbish".into())).contains("zfs receive -A bk/main"));
    // A snapshot to come has no guid yet, and is never what an unreadable token means.
    let to_come = tree(Some(ds(&[1]))).with_snapshot("new").datasets.remove(0);
    assert!(over(to_come, Partial::of("1-rubbish".into())).contains("no such snapshot"));
}

#[test]
fn what_to_type_names_the_snapshot() {
    let ahead = Conflict::DestinationAhead { base: "s1".into(), newer: vec!["s2".into()] };
    assert!(ahead.describe("bk/main").contains("'zfs rollback -r bk/main@s1'"));
    let changed = Conflict::DestinationModified { since: "s1".into() };
    assert!(changed.describe("bk/main").contains("'zfs rollback bk/main@s1'"));
}
