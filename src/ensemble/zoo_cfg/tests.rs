use fs_err as fs;

use super::*;

/// Writes a zoo.cfg whose data folder is beside it, with the id if there is one, and reads it.
fn read_cfg(text: &str, my_id: Option<&str>) -> Result<(ZooCfg, tempfile::TempDir), String> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    if let Some(my_id) = my_id {
        fs::write(data.join("myid"), my_id).unwrap();
    }
    let file = folder.path().join("zoo.cfg");
    fs::write(&file, text.replace("DATA", &data.display().to_string())).unwrap();
    match load_zoo_cfg(&file) {
        Ok(read) => Ok((read, folder)),
        Err(error) => Err(error.to_string().replace(&folder.path().display().to_string(), "FOLDER")),
    }
}

/// As Debian's package brings it, but for the comments.
#[test]
fn the_example_of_the_package_runs_alone() {
    let text =
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\n#maxClientCnxns=60\n";
    let (ZooCfg { plan, warnings }, _folder) = read_cfg(text, None).unwrap();
    assert_eq!(plan.client_addr.to_string(), "0.0.0.0:2181");
    assert_eq!((plan.member.peers, plan.member.tick), (None, Duration::from_secs(2)));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn three_voters_and_an_observer() {
    let text = "tickTime=200\ninitLimit=20\nsyncLimit=6\ndataDir=DATA\nclientPortAddress=127.0.0.1\nclientPort=2181\n\
                autopurge.snapRetainCount=5\nautopurge.purgeInterval=1\nsnapCount=1000\nmaxSessionTimeout=90000\n\
                4lw.commands.whitelist=srvr, ruok, wchp\nreadonlymode.enabled=true\nadmin.enableServer=false\nmyOwn=1\n\
                server.1=zoo1:2888:3888\nserver.2=[::1]:2889:3889:participant;2182\nserver.3=a:1:2|b:1:2\n\
                server.4=zoo4:2888:3888:observer;127.0.0.4:2181\nDigestAuthenticationProvider.superDigest=super:secret=\n";
    let (ZooCfg { plan, warnings }, _folder) = read_cfg(text, Some("3\n")).unwrap();
    let member = plan.member;
    let peers = member.peers.unwrap();
    assert_eq!((member.server_id.get(), peers.init_limit, peers.sync_limit), (3, 20, 6));
    assert_eq!((member.snapshots_kept, member.snapshot_txns, member.read_only_mode), (5, 1000, true));
    let timeouts = member.session_timeouts.unwrap();
    assert_eq!((timeouts.min, timeouts.max), (Duration::from_millis(400), Duration::from_secs(90)));
    assert_eq!(member.four_letter_words, [FourLetterWord::Srvr, FourLetterWord::Ruok]);
    let text = peers.members.to_config_text();
    assert_eq!(
        text,
        "server.1=zoo1:2888:3888:participant\nserver.2=[::1]:2889:3889:participant;0.0.0.0:2182\n\
         server.3=a:1:2:participant\nserver.4=zoo4:2888:3888:observer;127.0.0.4:2181\nversion=0"
    );
    let warnings = warnings.join("\n");
    assert!(
        warnings.contains(
            "keys without effect here: autopurge.purgeInterval, admin.enableServer; not known: myOwn"
        ),
        "{warnings}"
    );
    assert!(
        warnings.contains("wchp") && warnings.contains("superDigest") && !warnings.contains("secret"),
        "{warnings}"
    );
}

#[test]
fn dangerous_differences_are_refused_and_every_mistake_is_told_at_once() {
    let text = "tickTime=5\nsyncLimit=0\ndataDir=DATA\ndataLogDir=/elsewhere\nclientPort=none\nforceSync=no\nskipACL=yes\n\
                reconfigEnabled=true\ngroup.1=1:2\nweight.1=2\nelectionAlg=1\nleaderServes=no\nsslQuorum=true\n\
                secureClientPort=2281\nsnapshot.trust.empty=true\nserver.0=a:1:2\nserver.1=a\nserver.2=a:1:1\nserver.5=b:1:2\n";
    let error = read_cfg(text, Some("9")).map(drop).unwrap_err();
    let lines = [
        "zoo.cfg:1:1: tickTime: \"5\"",
        "zoo.cfg:2:1: syncLimit: ",
        "zoo.cfg:4:1: dataLogDir: ",
        "zoo.cfg:5:1: clientPort: ",
        "zoo.cfg:6:1: forceSync: ",
        "zoo.cfg:7:1: skipACL: ",
        "zoo.cfg:8:1: reconfigEnabled: ",
        "zoo.cfg:9:1: group.1: ",
        "zoo.cfg:10:1: weight.1: ",
        "zoo.cfg:11:1: electionAlg: ",
        "zoo.cfg:12:1: leaderServes: ",
        "zoo.cfg:14:1: secureClientPort: ",
        "zoo.cfg:15:1: snapshot.trust.empty: ",
        "zoo.cfg:16:1: server.0: ",
        "zoo.cfg:17:1: server.1: ",
        "zoo.cfg:1:1: initLimit: it is missing",
        "zoo.cfg:1:1: server: FOLDER/data/myid says 9",
        "zoo.cfg:1:1: server: members 2 and 2 both listen on a:1",
    ];
    for line in lines {
        assert!(error.contains(line), "{line} in\n{error}");
    }
    assert_eq!(error.lines().count(), lines.len(), "{error}");
}

#[test]
fn a_member_must_know_which_one_it_is() {
    let text = "initLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\nserver.1=a:1:2\nserver.2=b:1:2\n";
    for (my_id, expected) in
        [(None, "myid"), (Some(""), "holds \"\""), (Some("x"), "holds \"x\""), (Some("0"), "holds \"0\"")]
    {
        let error = read_cfg(text, my_id).map(drop).unwrap_err();
        assert!(error.contains(expected) && error.contains("write this member's id"), "{error}");
    }
    assert!(read_cfg(text, Some(" 2 \nmore")).is_ok());
}

#[test]
fn tls_between_members_takes_pem_stores() {
    let text = "initLimit=10\nsyncLimit=5\ndataDir=DATA\nclientPort=2181\nserver.1=a:1:2\nserver.2=b:1:2\nsslQuorum=true\n";
    let error = read_cfg(text, Some("1")).map(drop).unwrap_err();
    assert!(error.contains("ssl.quorum.keyStore.location"), "{error}");
    let text = format!(
        "{text}ssl.quorum.keyStore.location=/k.pem\nssl.quorum.keyStore.type=PEM\nssl.quorum.trustStore.location=/t.pem\n\
         ssl.quorum.hostnameVerification=false\nssl.quorum.clientAuth=want\n"
    );
    let (ZooCfg { plan, .. }, _folder) = read_cfg(&text, Some("1")).unwrap();
    let expected = TlsFiles {
        cert: "/k.pem".into(),
        key: "/k.pem".into(),
        ca: "/t.pem".into(),
        client_auth: ClientAuth::Want,
        verify_hostname: false,
    };
    assert_eq!(plan.member.peers.unwrap().tls, Some(expected));
    let jks = text.replace("PEM", "JKS") + "ssl.quorum.keyStore.password=hush\n";
    let error = read_cfg(&jks, Some("1")).map(drop).unwrap_err();
    assert!(
        error.contains("convert the store to PEM") && error.contains("decrypt it") && !error.contains("hush"),
        "{error}"
    );
}
