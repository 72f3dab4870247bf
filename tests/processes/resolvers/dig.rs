//! `dig`, which asks with EDNS and a cookie, and looks names up with a search list only when it is told to.

use super::pod::{MANY, Pod, SEARCH};

#[test]
fn dig_finds_names_of_the_registry_and_of_others() {
    let pod = Pod::serving();
    for options in ["ndots:1", "ndots:5"] {
        pod.search(SEARCH, options);
        // With ndots:1 it looks a name with a dot up as it is, and when that does not exist it tries no ending.
        let short = if options == "ndots:1" { "web" } else { "web.default" };
        let found = pod.dig(&["+search", short, "A"]);
        assert_eq!(found.answers("A"), ["10.0.0.1", "10.0.0.2"], "{}", found.text);
        assert_eq!(found.answer[0].name, format!("{short}.rollcall.internal."));
        let found = pod.dig(&["+search", "www.example.test", "A"]);
        assert_eq!(found.answers("A"), ["192.0.2.1"], "{}", found.text);
        assert_eq!(pod.dig(&["+search", "nope.default"]).status, "NXDOMAIN");
        assert_eq!(pod.dig(&["web.default"]).status, "NXDOMAIN", "of others, as it is");
    }
    let whole = pod.dig(&["web.default.rollcall.internal", "SRV"]);
    assert_eq!((whole.answer.len(), whole.additional.len()), (2, 4), "{}", whole.text);
    assert_eq!(whole.flags, ["qr", "aa", "rd", "ra"], "{}", whole.text);
    assert!(whole.text.contains("COOKIE: ") && whole.text.contains("(good)"), "{}", whole.text);
    let [cut, whole] = [&["+ignore", "+noedns"][..], &["+noedns"]]
        .map(|options| pod.dig(&[options, &["many.default.rollcall.internal"]].concat()));
    assert!(cut.flags.contains(&"tc".to_owned()) && cut.answer.len() > 20, "{}", cut.text);
    assert_eq!(whole.answer.len(), MANY, "over TCP: {}", whole.text);
    let root = pod.dig(&[".", "SOA"]);
    assert_eq!(root.answer.first().map(|record| record.name.as_str()), Some("."), "{}", root.text);
    let four = pod.dig(&["four.default.rollcall.internal", "AAAA"]);
    assert_eq!((four.status.as_str(), four.answer.len(), four.authority.len()), ("NOERROR", 0, 1));
}

#[test]
fn dig_shows_why_there_is_no_answer_while_nothing_was_learnt() {
    let pod = Pod::never_loaded();
    let failed = pod.dig(&["web.default.rollcall.internal"]);
    assert_eq!(failed.status, "SERVFAIL", "{}", failed.text);
    assert!(failed.text.contains("EDE: 22 (No Reachable Authority)"), "{}", failed.text);
    assert_eq!(pod.dig(&["www.example.test"]).answers("A"), ["192.0.2.1"]);
    assert_eq!(pod.dig(&["nope.example.test"]).status, "NXDOMAIN");
}
