//! The vectors of docs/protocol.md, section 17. They come from `tests/interop/vectors.py`, which shares no code with
//! this crate.

use std::collections::BTreeMap;

use shardkeep_auth::{
    AccountName, ChannelBinding, Preface, Transcript, WorkCounter,
    login_keys::LoginKeys,
    puzzle::{PuzzleIssuer, solve, split},
    registration::{self, RegionKey},
    session::{Proof, SessionKeys, key_source},
    srp::{Credentials, Group, Parameters, Verifier},
    totp,
};
use shardkeep_types::Secret;
use shardkeep_wire::seal::{AwsLc, Provider};

const SRP_SECTIONS: [&str; 5] = ["srp", "srp short A", "srp short B", "srp short S", "srp short v"];

/// When the puzzle of the vectors was made.
const PUZZLE_MADE_MS: u64 = 1_700_000_000_123;

struct Section(BTreeMap<String, Vec<u8>>);

impl Section {
    fn read(wanted: &str) -> Self {
        let text = include_str!("vectors.txt");
        let start = text.find(&format!("[{wanted}]\n")).expect("the section exists") + wanted.len() + 3;
        let values = text[start..]
            .lines()
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_once(" = ").expect("name = value"))
            .map(|(name, value)| (name.to_owned(), hex::decode(value).expect("hexadecimal")));
        Self(values.collect())
    }

    fn get(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is in the vectors"))
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.get(name).try_into().expect("of that length")
    }
}

#[test]
fn srp_matches_vectors() {
    let usual = SRP_SECTIONS.map(|name| (name, Group::Bits2048));
    for (name, group) in
        usual.into_iter().chain([("srp 3072", Group::Bits3072), ("srp 4096", Group::Bits4096)])
    {
        let vector = Section::read(name);
        let account = AccountName::normalise(" Alice").unwrap();
        let created = Verifier::create(group, &account, "correct horse", vector.array("salt")).unwrap();
        assert_eq!(created.verifier().expose(), vector.get("v"), "{name}: v");

        let mut work = WorkCounter::default();
        let challenge = created.challenge(&Secret::new(vector.array("b")), &mut work).unwrap();
        assert_eq!(challenge.public(), vector.get("B"), "{name}: B");

        let received = Parameters { group: group.bits(), salt: challenge.salt(), b: challenge.public() };
        let credentials = Credentials::new(account, "correct horse").unwrap();
        let answer = credentials.answer(&received, &Secret::new(vector.array("a"))).unwrap();
        assert_eq!(answer.public(), vector.get("A"), "{name}: A");
        assert_eq!(answer.m1(), vector.get("M1"), "{name}: M1");

        let session = challenge.verify(vector.get("A"), vector.get("M1"), &mut work).unwrap();
        assert_eq!(session.m2(), vector.get("M2"), "{name}: M2");
        assert_eq!(session.shared().expose(), vector.get("K"), "{name}: K");
        assert_eq!(answer.verify(vector.get("M2")).unwrap().expose(), vector.get("K"), "{name}: K");
        assert_eq!(work.exponentiations, 3);
    }
}

#[test]
fn short_srp_vectors_have_a_leading_zero() {
    for (section, name) in SRP_SECTIONS[1..].iter().zip(["A", "B", "S", "v"]) {
        assert_eq!(Section::read(section).get(name).len(), 255, "{section}");
    }
}

/// Every value that the page prints is one of ours.
#[test]
fn protocol_page_prints_these_vectors() {
    let page = include_str!("../../../docs/protocol.md");
    let section = page.split_once("## 17. Test vectors").expect("the page has the section").1;
    // What follows is checked by the crate that frames messages.
    let section = section.split("### Framing").next().unwrap_or(section);
    let ours = include_str!("vectors.txt");
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    assert_eq!(blocks.len(), 19);
    for block in blocks {
        // A line that begins a value has its name in the first column.
        for value in block.trim().replace("\n ", "").lines() {
            let value: String = value[18..].split_whitespace().collect();
            assert!(ours.contains(&format!(" = {value}\n")), "not in vectors.txt: {value}");
        }
    }
}

#[test]
fn registration_matches_vectors() {
    let vector = Section::read("registration");
    let preface: Preface = Section::read("login").array("preface");
    let region = RegionKey::new(&Secret::new(vector.array("region secret"))).unwrap();
    assert_eq!(region.public(), vector.get("region public"));
    let client = Secret::new(vector.array("client secret"));
    let wanted = vector.get("Registration");
    let request = registration::seal(region.public(), &preface, &client, wanted).unwrap();
    // The message ends with both: 32 bytes of key, a tag and two bytes of length, and what is sealed.
    let message = vector.get("Register");
    let sealed = &message[message.len() - request.sealed.len()..];
    assert_eq!(request.sealed, sealed);
    assert_eq!(request.key, message[message.len() - sealed.len() - 3 - 32..][..32]);
    let (opened, reply) = region.open(&preface, &request.key, sealed).unwrap();
    assert_eq!(opened, wanted);
    let answer = vector.get("Registered");
    let answer_sealed = reply.seal(vector.get("NewAccount")).unwrap();
    assert!(answer.ends_with(&answer_sealed));
    assert_eq!(request.reply.open(&answer_sealed).unwrap(), vector.get("NewAccount"));
}

#[test]
fn totp_codes_match_vectors() {
    let vector = Section::read("second factor");
    for seconds in [59, 1_111_111_109, 2_000_000_000] {
        let code = totp::code(vector.get("secret"), totp::step_at(seconds * 1_000));
        assert_eq!(code.as_bytes(), vector.get(&format!("code at {seconds}")));
    }
    let two = std::str::from_utf8(vector.get("two at 59")).unwrap();
    assert_eq!(totp::steps_of_code_pair(vector.get("secret"), two, 59_000), Some(0..=1));
}

#[test]
fn login_keys_and_tickets_match_vectors() {
    let vector = Section::read("login");
    let mut transcript = Transcript::new(vector.get("preface"));
    for message in ["Hello", "Challenge", "Proof"] {
        transcript.add(vector.get(message));
    }
    let th1 = transcript.hash();
    assert_eq!(th1, vector.array("th1"));
    let mut keys = LoginKeys::derive(&Secret::new(Section::read("srp").array("K")), None, &th1);
    assert_eq!(keys.client.expose(), vector.get("client key"));
    assert_eq!(keys.server.expose(), vector.get("server key"));

    let verified = vector.get("Verified");
    assert!(keys.server_finished(&th1).matches(&verified[verified.len() - 32..]));
    transcript.add(verified);
    assert_eq!(transcript.hash(), vector.array("th2"));
    assert!(keys.client_finished(&transcript.hash()).matches(vector.get("Finished.finished")));

    let chain = Section::read("tickets");
    for index in 0..3 {
        let ticket = keys.chain.take();
        assert_eq!(ticket.index, index);
        assert_eq!(ticket.id.as_bytes(), chain.get(&format!("ticket {index} id")));
        assert_eq!(ticket.key.expose(), chain.get(&format!("ticket {index} key")));
    }
}

#[test]
fn puzzles_match_vectors() {
    let vector = Section::read("puzzle");
    let maker = PuzzleIssuer::new(Secret::new(vector.array("seed")));
    let (address, hello) = (vector.array("address"), vector.get("Hello payload"));
    let token = maker.make(&address, hello, PUZZLE_MADE_MS, 12);
    assert_eq!(token, vector.array("token"));
    let answer = solve(&token, 12).unwrap();
    assert_eq!(answer[25..], *vector.get("solution"));
    let answered = vector.get("Hello answered");
    let (unanswered, found) = split(&answered[5..]);
    assert_eq!((unanswered, found), (hello, Some(&answer)));
    let lives = std::time::Duration::from_secs(30);
    assert_eq!(maker.check(&address, hello, &answer, PUZZLE_MADE_MS + 1, lives), Ok(token));
    let puzzle = vector.get("Puzzle");
    assert_eq!(puzzle[puzzle.len() - 27..][..25], token);
}

#[test]
fn keys_of_a_login_with_key_shares_match_vectors() {
    let vector = Section::read("hybrid");
    let secret = Secret::new(vector.array("secret"));
    let shared = Secret::new(Section::read("srp").array("K"));
    let keys = LoginKeys::derive(&shared, Some(&secret), &vector.array("th1"));
    assert_eq!(keys.client.expose(), vector.get("client key"));
    assert_eq!(keys.server.expose(), vector.get("server key"));
}

#[test]
fn attach_and_resume_match_vectors() {
    let attach = Section::read("attach");
    let preface: Preface = attach.array("preface");
    let key = Secret::new(attach.array("ticket key"));
    let proof = Proof::attach(&key);
    assert!(ends_with(
        attach.get("Attach"),
        &proof.client(&preface, &attach.array("ticket id"), &[0xe3; 32], &[1, 2])
    ));
    let answer = proof.server(&preface, attach.get("Attach"), &[0xf4; 32], 1, key_source::TICKET);
    assert!(ends_with(attach.get("Attached"), &answer));
    let keys = SessionKeys::derive(&key, &preface, attach.get("Attach"), attach.get("Attached"));
    assert_keys(&keys, &attach);

    let resume = Section::read("resume");
    let id = resume.array("session id");
    let request = resume.get("Resume");
    let by_gateway = Proof::resume(&keys.gateway_resume);
    let by_world = Proof::resume(&keys.world_resume);
    assert!(
        by_gateway.client(&preface, &id, &[0x15; 32], &[1, 2]).matches(&request[request.len() - 66..][..32])
    );
    assert!(ends_with(request, &by_world.client(&preface, &id, &[0x15; 32], &[1, 2])));

    let answer = by_gateway.server(&preface, request, &[0x26; 32], 2, key_source::GATEWAY);
    let attached = resume.get("Attached");
    assert!(answer.matches(&attached[attached.len() - 34..][..32]), "the field `key` follows");
    assert_keys(&SessionKeys::derive(&keys.gateway_resume, &preface, request, attached), &resume);

    let resume = Section::read("resume by world");
    let answer = by_world.server(&preface, request, &[0x26; 32], 2, key_source::WORLD);
    let attached = resume.get("Attached");
    assert!(answer.matches(&attached[attached.len() - 34..][..32]));
    let keys = SessionKeys::derive(&keys.world_resume, &preface, request, attached);
    assert_keys(&keys, &resume);
    let updated = AwsLc::expand(keys.client.expose(), b"shardkeep v1 key update").unwrap();
    assert_eq!(updated.expose(), Section::read("key update").get("key"));
}

#[test]
fn quic_transcripts_include_exporter() {
    let (login, vector) = (Section::read("login"), Section::read("login on quic"));
    let exporter: [u8; 32] = vector.array("exporter");
    let mut transcript = Transcript::new(&ChannelBinding::new(&login.array("preface"), Some(exporter)));
    for message in ["Hello", "Challenge", "Proof"] {
        transcript.add(login.get(message));
    }
    assert_eq!(transcript.hash(), vector.array("th1"));

    let (attach, vector) = (Section::read("attach"), Section::read("attach on quic"));
    let binding = ChannelBinding::new(&attach.array("preface"), Some(exporter));
    let key = Secret::new(attach.array("ticket key"));
    let (proof, id) = (Proof::attach(&key), attach.array("ticket id"));
    assert!(ends_with(vector.get("Attach"), &proof.client(&binding, &id, &[0xe3; 32], &[1, 2])));
    let answer = proof.server(&binding, vector.get("Attach"), &[0xf4; 32], 1, key_source::TICKET);
    assert!(ends_with(vector.get("Attached"), &answer));
    let keys = SessionKeys::derive(&key, &binding, vector.get("Attach"), vector.get("Attached"));
    assert_eq!(keys.client.expose(), vector.get("client key"));
    assert_eq!(keys.server.expose(), vector.get("server key"));
    assert_eq!(keys.datagrams.expose(), vector.get("datagram key"));
}

fn ends_with(message: &[u8], mac: &shardkeep_auth::Mac) -> bool {
    mac.matches(&message[message.len() - 32..])
}

fn assert_keys(keys: &SessionKeys, vector: &Section) {
    assert_eq!(keys.client.expose(), vector.get("client key"));
    assert_eq!(keys.server.expose(), vector.get("server key"));
    assert_eq!(keys.gateway_resume.expose(), vector.get("gateway resume key"));
    assert_eq!(keys.world_resume.expose(), vector.get("world resume key"));
}
