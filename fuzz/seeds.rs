//! Makes the seeds of the fuzz targets from the vectors and examples of the repository:
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

#[path = "support/sample.rs"]
mod sample;

use highwater::{config::{KeyEncoding, pkcs11::{profile::Profile, spec::{KeySpec, ObjectSelector, TokenSelector, TokenSpec}}}, keyring::{device::Trouble, child::protocol::{SignRequest, encode_answer, write_frame, write_json}, softsign::encoding}, state::foreign::{self, Program}};
use highwater_core::{consensus::{Digest, Hrs, KeyType, Step, Target, Timestamp}, watermark::{BLOCK_BYTES, Mark, Mode, Record, SignedMessage, image}};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use subtle_encoding::{base64, hex};

fn main() {
    for (target, seeds) in [
        ("config", configurations()),
        ("foreign_state", foreign_states()),
        ("handshake", handshakes()),
        ("keys", keys()),
        ("message", streams()),
        ("pkcs11_protocol", pkcs11_streams()),
        ("profile", profiles()),
        ("record", files().into_iter().map(|file| file[1..].to_vec()).collect()),
        ("request", bodies()),
        ("sign_bytes", sign_bytes()),
        ("state_file", files()),
    ] {
        let folder = repository("fuzz/seeds").join(target);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("{number:02}")), seed).expect("the seed can be written");
        }
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> Vec<u8> {
    fs::read(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn vectors(file: &str, list: &str) -> Vec<Value> {
    let json: Value = serde_json::from_slice(&read(&format!("tests/vectors/{file}.json"))).expect("vectors are JSON");
    json[list].as_array().expect("a list").clone()
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_str().map(|text| hex::decode(text).expect("vectors are hex"))
}

/// The example as it is, with every setting on, and in pieces small enough for a mutation to matter.
fn configurations() -> Vec<Vec<u8>> {
    let example = String::from_utf8(read("tmkms.toml.example")).expect("it is text");
    let turn_on = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| !c.is_whitespace()) => setting.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<_> = example.lines().map(turn_on).collect();
    let bare = all.iter().filter(|line| !line.starts_with('#')).map(|line| line.split(" # ").next().unwrap_or(line));
    let least = "[[chain]]\nid = \"a\"\nkey_format = { type = \"hex\" }\n[[validator]]\naddr = \"unix:///a\"\nchain_id = \"a\"\n\
                 [[providers.softsign]]\nchain_ids = [\"a\"]\npath = \"/a\"\n";
    vec![
        example.clone().into_bytes(),
        all.join("\n").into_bytes(),
        bare.collect::<Vec<_>>().join("\n").into_bytes(),
        least.into(),
    ]
}

fn profiles() -> Vec<Vec<u8>> {
    Profile::names().map(|name| read(&format!("hsm-profiles/{name}.toml"))).collect()
}

fn bodies() -> Vec<Vec<u8>> {
    let whole = |vector: &Value| bytes(&vector["message"]).or_else(|| Some(bytes(&vector["delimited"])?[1..].to_vec()));
    vectors("wire", "messages").iter().filter_map(whole).collect()
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

fn streams() -> Vec<Vec<u8>> {
    let mut streams: Vec<_> = bodies().iter().map(|body| frame(body)).collect();
    streams.push(streams.concat());
    streams.extend([vec![0x80; 11], vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![0x80, 0x80, 0x80, 0x02]]);
    streams
}

fn sign_bytes() -> Vec<Vec<u8>> {
    vectors("sign_bytes", "vectors").iter().filter_map(|vector| bytes(&vector["SignBytes"])).collect()
}

/// Scenes of the handshake target, each with a script that belongs to it.
fn handshakes() -> Vec<Vec<u8>> {
    let authentication = [&[0x66, 0x0a, 0x22, 0x0a, 0x20][..], &[0; 32], &[0x12, 0x40], &[7; 64]].concat();
    let announced = |length: u32, chunk: &[u8]| [&[2][..], &length.to_le_bytes(), chunk].concat();
    let chunk = |oddities: u8, chunk: &[u8]| {
        let length = u16::try_from(chunk.len()).expect("a chunk is short");
        [&[oddities][..], &length.to_le_bytes(), chunk].concat()
    };
    let stream = streams().concat();
    let told = |size: usize| stream.chunks(size).flat_map(|piece| chunk(0, piece)).collect::<Vec<_>>();
    vec![
        [&[0, 0x22, 0x0a, 0x20][..], &[9; 32]].concat(),
        vec![0, 3, 0x0a, 0x20, 1],
        [&[1][..], &[0x11; 1044]].concat(),
        announced(103, &authentication),
        announced(104, &[&authentication[..], &[0]].concat()),
        announced(u32::MAX, &[]),
        vec![3],
        [&[4][..], &told(100)].concat(),
        [&[5][..], &told(1024)].concat(),
        [&[5][..], &told(7)[..200]].concat(),
        [&[5][..], &chunk(0, &[2, 0x3a, 0]), &chunk(4, &[2, 0x3a, 0]), &chunk(0, &[2, 0x3a, 0])].concat(),
        [&[5][..], &chunk(1, &[2, 0x3a, 0]), &chunk(2 | 4 << 3, &[2, 0x3a, 0])].concat(),
        [&[5][..], &chunk(0, &[0xff, 0xff, 0xff, 0x01, 1, 2, 3])].concat(),
    ]
}

fn marks() -> [Mark; 3] {
    let hrs = Hrs { height: 12, round: 3, step: Step::Precommit };
    let timestamp = Timestamp::new(1_700_000_000, 999).expect("a good time");
    let signed = |target| Mark { hrs, signed: Some(SignedMessage { target, timestamp, digest: Digest([0xab; 32]) }) };
    [Mark::NEVER_SIGNED, signed(Target::Block), signed(Target::Nil)]
}

/// The fields of both slots of whole files, behind flags that ask for good checksums.
fn files() -> Vec<Vec<u8>> {
    const FIELDS_BYTES: usize = 128;
    const HEADER_BYTES: usize = 192;
    let mut files = Vec::new();
    for mark in marks() {
        for mode in [Mode::Active, Mode::Retired] {
            for sequence in [0, 7, u64::MAX / 2 - 1, u64::MAX - 1] {
                let image = image(&Record { mode, sequence, header: sample::header(), mark });
                let part = |block: usize, length| &image[block * BLOCK_BYTES..block * BLOCK_BYTES + length];
                files.push([&[3][..], part(1, FIELDS_BYTES), part(2, FIELDS_BYTES)].concat());
                files.push([&[15][..], part(0, HEADER_BYTES), part(1, FIELDS_BYTES), part(2, FIELDS_BYTES)].concat());
            }
        }
    }
    files
}

fn keys() -> Vec<Vec<u8>> {
    let public = sample::identity().key;
    let go_form = [&sample::SEED[..], public.as_bytes()].concat();
    let text = |bytes: &[u8]| String::from_utf8(base64::encode(bytes)).expect("base64 is text");
    let file = |kind: &str, secret: &[u8], public: Value| {
        let json = json!({ "pub_key": public, "priv_key": { "type": format!("tendermint/PrivKey{kind}"), "value": text(secret) } });
        json.to_string().into_bytes()
    };
    let typed = json!({ "type": "tendermint/PubKeyEd25519", "value": text(public.as_bytes()) });
    let with_address = json!({
        "address": String::from_utf8(hex::encode_upper(public.address())).expect("hex is text"),
        "pub_key": typed, "priv_key": { "type": "tendermint/PrivKeyEd25519", "value": text(&go_form) },
    });
    let expanded =
        encoding::decode(&base64::encode([0x17; 64]), KeyType::Ed25519, KeyEncoding::Base64);
    vec![
        base64::encode(sample::SEED),
        [&base64::encode(sample::SEED)[..], b"\n"].concat(),
        base64::encode(&go_form),
        expanded.map(|key| key.to_base64().to_vec()).unwrap_or_default(),
        base64::encode([0x17; 96]),
        with_address.to_string().into_bytes(),
        file("Ed25519", &go_form, typed),
        file("Secp256k1", &sample::SEED, Value::Null),
        file("Bls12_381", &sample::SEED, Value::Null),
    ]
}

fn foreign_states() -> Vec<Vec<u8>> {
    let mut states: Vec<Vec<u8>> = marks()
        .iter()
        .flat_map(|mark| [Program::CometBft, Program::Tmkms].map(|program| foreign::write(program, mark).into()))
        .collect();
    // CometBFT's file proves itself with its last signature.
    for vector in vectors("sign_bytes", "vectors").iter().filter(|vector| vector["Kind"] != "extension") {
        let step = match vector["Type"].as_u64() {
            Some(32) => 1,
            Some(1) => 2,
            _ => 3,
        };
        let Some(signature) = bytes(&vector["SigEd25519"]) else { continue };
        let text = String::from_utf8(base64::encode(signature)).expect("base64 is text");
        let height = vector["Height"].to_string();
        let signbytes = vector["SignBytes"].as_str().unwrap_or_default().to_uppercase();
        let state = json!({ "height": height, "round": vector["Round"], "step": step, "signature": text, "signbytes": signbytes });
        states.push(state.to_string().into_bytes());
    }
    states
}

fn pkcs11_streams() -> Vec<Vec<u8>> {
    let frame = |body: &[u8]| {
        let mut out = Vec::new();
        write_frame(&mut out, body).expect("it fits");
        out
    };
    let spec = TokenSpec {
        module: "/usr/lib/softhsm/libsofthsm2.so".into(),
        profile: Profile::builtin("softhsm2").expect("it is built in"),
        token: TokenSelector::Label("validator".into()),
        keys: vec![KeySpec { object: ObjectSelector::Id(vec![1]), key_type: KeyType::Ed25519, public_key: vec![7; 32] }],
        files: vec!["/dev/shm".into()],
        environment: vec!["HSM_LOG".into()],
        never: vec!["/var/lib/highwater/state".into()],
    };
    let mut whole = Vec::new();
    write_json(&mut whole, &spec).expect("it fits");
    let request = frame(&SignRequest::encode(1, b"message"));
    let answers = [
        Ok(vec![7; 64]),
        Err(Trouble::Broken("it died".into())),
        Err(Trouble::Fatal("the PIN is wrong".into())),
        Err(Trouble::Rejected("too long".into())),
    ];
    let mut streams: Vec<_> = answers.iter().map(|answer| frame(&encode_answer(answer))).collect();
    streams.push([&whole[..], &frame(b"1234"), &request].concat());
    streams.extend([whole, request, frame(b""), u32::MAX.to_le_bytes().to_vec()]);
    streams
}
