//! Every option that other tools give our commands is one they know (the table is that of OpenZFS's option strings and of what
//! syncoid, zrepl, zfs_autobackup and bzfs type).

use crate::support::Desk;

/// Command, options without a value, options with one, and those of OpenZFS that are refused as unknown.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const FLAGS: &[Row] = &[
    (
        "zfs list",
        "-H -p -r -j --json --json-int",
        &[("-o", "name"), ("-s", "name"), ("-S", "name"), ("-t", "all"), ("-d", "1")],
        &[],
    ),
    (
        "zfs get",
        "-H -p -r -j --json --json-int",
        &[("-o", "name"), ("-s", "local"), ("-t", "all"), ("-d", "1")],
        &[],
    ),
    (
        "zfs send",
        "-D -L -P -R -U -V -b -c -e -h -n -p -s -S -v -w --raw --replicate --props --large-block --compressed \
         --embed --holds --dryrun --verbose --parsable --saved --skip-missing --backup --proctitle \
         --no-preserve-encryption",
        &[
            ("-X", "x"),
            ("--exclude", "x"),
            ("-i", "a"),
            ("-I", "a"),
            ("-t", "1-0"),
            ("-d", "b"),
            ("--redact", "b"),
        ],
        &[],
    ),
    ("zfs receive", "-F -A -c -d -e -h -M -n -s -u -v", &[("-o", "a:b=c"), ("-x", "a:b")], &[]),
    ("zfs recv", "-F -s -u -v", &[], &[]),
    ("zfs load-key", "-a -r -n", &[("-L", "prompt")], &[]),
    ("zfs unload-key", "-a -r", &[], &[]),
    ("zfs change-key", "-l -i", &[("-o", "keyformat=raw")], &[]),
    ("zfs create", "-P -n -p -s -u -v", &[("-V", "1M"), ("-b", "8k"), ("-o", "a:b=c")], &[]),
    ("zfs clone", "-p -u", &[("-o", "a:b=c")], &[]),
    ("zfs snapshot", "-r", &[("-o", "a:b=c")], &[]),
    ("zfs rollback", "-r -R -f", &[], &[]),
    ("zfs destroy", "-d -f -n -p -r -R -v", &[], &[]),
    ("zfs rename", "-p -r -u -f", &[], &[]),
    ("zfs hold", "-r", &[], &[]),
    ("zfs holds", "-r -H -p", &[], &[]),
    ("zfs release", "-r", &[], &[]),
    ("zfs set", "-u", &[], &[]),
    ("zfs inherit", "-r -S", &[], &[]),
    ("zfs mount", "-a -R -l -v -O -f -j --json", &[("-o", "ro")], &[]),
    ("zfs unmount", "-a -f -u", &[], &[]),
    ("zfs diff", "-F -H -t -h", &[], &[]),
    ("zfs upgrade", "-r -v -a", &[("-V", "5")], &[]),
    ("zfs userspace", "-n -H -p -i", &[("-o", "name"), ("-s", "name"), ("-S", "name"), ("-t", "all")], &[]),
    ("zfs version", "-j --json", &[], &[]),
    (
        "zpool create",
        "-f -n -d",
        &[("-R", "/x"), ("-m", "none"), ("-o", "ashift=12"), ("-O", "a:b=c"), ("-t", "x")],
        &[],
    ),
    (
        "zpool add",
        "-f -g -L -n -P --allow-in-use --allow-replication-mismatch --allow-ashift-mismatch",
        &[("-o", "ashift=12")],
        &[],
    ),
    ("zpool attach", "-f -s -w", &[("-o", "ashift=12")], &[]),
    ("zpool replace", "-f -s -w", &[("-o", "ashift=12")], &[]),
    ("zpool clear", "-F -n -X --power", &[], &[]),
    ("zpool offline", "-f -t --power", &[], &[]),
    ("zpool online", "-e --power", &[], &[]),
    ("zpool destroy", "-f", &[], &[]),
    ("zpool export", "-a -f", &[], &["-F"]),
    (
        "zpool import",
        "-a -D -f -F -l -m -N -n -s -t -X --rewind-to-checkpoint",
        &[("-c", "/none"), ("-d", "/none"), ("-o", "readonly=on"), ("-R", "/x"), ("-T", "1")],
        &["-C", "-E", "-V"],
    ),
    ("zpool list", "-H -p -v -j --json --json-int -g -L -P", &[("-o", "name"), ("-T", "u")], &[]),
    (
        "zpool status",
        "-v -x -P -p -e -g -L -j --json --json-int --json-flat-vdevs --json-pool-key-guid",
        &[("-c", "x"), ("-T", "d")],
        &["-D", "-d", "-i", "-s", "-t"],
    ),
    ("zpool get", "-H -p -j --json --json-int", &[("-o", "name")], &[]),
    ("zpool scrub", "-s -p -w -a -e -C", &[], &["-S", "-E"]),
    ("zpool history", "-i -l", &[], &[]),
    ("zpool upgrade", "-a -v", &[], &[]),
    ("zpool labelclear", "-f", &[], &[]),
    ("zpool sync", "-f", &[], &[]),
    ("zpool wait", "", &[("-t", "scrub")], &["-H", "-p", "-T"]),
    ("zpool reguid", "", &[("-g", "1")], &[]),
    ("zpool version", "-j --json", &[], &[]),
];

#[test]
fn options_of_other_tools_are_known() {
    // Without a pool, and where something would be done without operands there is none to do it to.
    let desk = Desk::new();
    for (command, flags, valued, refused) in FLAGS {
        let known = |line: &str| {
            let done = desk.run(line);
            let unknown = done.err.lines().next().is_some_and(|l| l.starts_with("invalid option"));
            (unknown && !done.err.starts_with("invalid option comb"), done)
        };
        for line in flags.split_whitespace().map(|f| format!("{command} {f}")) {
            let (unknown, done) = known(&line);
            assert!(!unknown, "{line}\n{}", done.err);
        }
        for (flag, value) in *valued {
            let line = format!("{command} {flag} {value}");
            let (unknown, done) = known(&line);
            assert!(!unknown, "{line}\n{}", done.err);
        }
        for flag in *refused {
            let line = format!("{command} {flag} x");
            let (unknown, done) = known(&line);
            assert!(
                unknown && done.status == 2,
                "{line} is known now: this table is to say so\n{}",
                done.err
            );
        }
    }
}
