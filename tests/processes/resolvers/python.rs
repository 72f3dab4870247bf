//! Python: `socket.getaddrinfo`, which is the system's with the flags of its own.

use super::pod::{MANY, NO_NAME, Pod, SEARCH, WEB, WWW, expect, expect_many};

const PROGRAM: &str = "
import socket, sys
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
        print(name, *(entry[4][0] for entry in found))
    except socket.gaierror as error:
        print(name, 'error', 'EAI_NONAME' if error.errno == socket.EAI_NONAME else error.errno)
";

#[test]
fn python_finds_names_of_the_registry_and_of_others_with_a_search_list() {
    let pod = Pod::serving();
    for options in ["ndots:1", "ndots:5"] {
        pod.search(SEARCH, options);
        let names = ["web.default", "four.default", "www.example.test", "nope.default", "many.default"];
        let told = pod.look_up("python3", &[&["-c", PROGRAM][..], &names].concat());
        expect(
            &told,
            &[
                ("web.default", WEB),
                ("four.default", &["10.0.1.1", "10.0.1.2"]),
                ("www.example.test", WWW),
                ("nope.default", NO_NAME),
            ],
        );
        expect_many(&told["many.default"], MANY..=MANY);
    }
}
