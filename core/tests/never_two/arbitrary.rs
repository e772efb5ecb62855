//! Random histories with numbers up to the highest, each mark through the bytes of the state file.

use super::{
    PROMISE,
    asks::{Ask, chain_id},
    assurance,
    dice::{Dice, Replay, seed},
    reference::{May, Reference},
};
use highwater_core::{
    consensus::{HEIGHT_MAX, Hrs, KeyType, PublicKey, ROUND_MAX, Step},
    watermark::{Candidate, FileId, Header, HostId, Identity, Mark, Mode, Record, Verdict, decide},
};

const HISTORIES: u64 = if cfg!(debug_assertions) { 1_000 } else { 20_000 };
const STEPS: u64 = 40;

/// A request that is near the last one more often than not.
fn arbitrary_ask(dice: &mut Dice, last: &Ask) -> Ask {
    let mut ask = last.clone();
    let highest = HEIGHT_MAX.cast_signed();
    match dice.below(12) {
        0 => ask.height = dice.pick(&[1, 2, highest - 1, highest, ask.height]),
        1 => ask.height = dice.between(1, highest),
        2 | 3 => ask.height = ask.height.saturating_add(1),
        4 => ask.height = (ask.height - 1).max(1),
        5 => ask.round = dice.pick(&[0, 1, ROUND_MAX.cast_signed() - 1, ROUND_MAX.cast_signed()]),
        6 => ask.round = ask.round.saturating_add(1),
        7 => ask.round = (ask.round - 1).max(0),
        _ => {}
    }
    if dice.percent(50) {
        ask.step = dice.pick(&[Step::Propose, Step::Prevote, Step::Precommit]);
    }
    if dice.percent(30) {
        ask.block = dice.pick(&[0, 1, 2, u8::MAX]);
    }
    if ask.step == Step::Propose {
        ask.block = ask.block.max(1);
    }
    if dice.percent(20) {
        ask.pol_round = dice.pick(&[-1, 0, 1, i32::MAX]);
    }
    if dice.percent(50) {
        // From year 1 to year 9999, back and forth.
        ask.time.0 = dice.pick(&[-62_135_596_800, -1, 0, 1_700_000_000, 253_402_300_799]);
        ask.time.1 = dice.pick(&[0, 1, 999_999_999]);
    }
    ask
}

/// What a restart makes of a mark.
fn through_the_file(mark: Mark, record: &Record) -> Mark {
    Record::decode(&Record { mark, ..record.clone() }.encode(), &record.header).unwrap().mark
}

#[test]
fn the_rule_keeps_the_promise_over_random_histories() {
    let chain = chain_id();
    let key = ed25519_dalek::SigningKey::from_bytes(&[0x42; 32]).verifying_key();
    let key = PublicKey::from_bytes(KeyType::Ed25519, key.as_bytes()).unwrap();
    let identity = Identity { chain: chain.clone(), key };
    let header = Header::new(HostId([1; 16]), identity, FileId { inode: 1, birth: None });
    let record = Record { mode: Mode::Active, sequence: 0, header, mark: Mark::NEVER_SIGNED };
    let (mut signed, mut repeated, mut refused) = (0, 0, 0_u64);
    for number in 0..HISTORIES {
        let mut replay = Replay { test: "arbitrary", seed: seed().wrapping_add(number), step: 0 };
        let mut dice = Dice::new(replay.seed);
        let (mut reference, mut mark) = (Reference::default(), Mark::NEVER_SIGNED);
        let step = Step::Prevote;
        let (extension, time) = (Vec::new(), (1_700_000_000, 0));
        let mut ask =
            Ask { height: 1, round: 0, step, block: 1, pol_round: -1, time, extension, skip_extension: false };
        reference.close(mark.hrs);
        for step in 0..STEPS {
            replay.step = step;
            if dice.percent(2) {
                let height = mark.hrs.height.saturating_add(dice.below(2)).min(HEIGHT_MAX);
                if reference.close(Hrs::end_of(height)) {
                    mark = through_the_file(Mark::floor(Hrs::end_of(height)), &record);
                }
            }
            ask = arbitrary_ask(&mut dice, &ask);
            let canonical = ask.canonical();
            let candidate = Candidate {
                hrs: canonical.hrs(),
                target: canonical.target(),
                timestamp: canonical.timestamp,
                digest: canonical.digest(&chain),
            };
            match (decide(&mark, &candidate), reference.may(&ask)) {
                (Verdict::Sign, May::Leave) => {
                    signed += 1;
                    reference.leave(&ask);
                    mark = through_the_file(candidate.mark(), &record);
                }
                (Verdict::Repeat { timestamp }, May::Again { time }) => {
                    repeated += 1;
                    assert_eq!((timestamp.seconds(), timestamp.nanos().cast_signed()), time, "{ask:?}");
                }
                (Verdict::Refuse(_), May::Stay) => refused += 1,
                (verdict, may) => panic!("{ask:?} after {mark:?}: {verdict:?}, the promise says {may:?}"),
            }
        }
    }
    assert!(signed > HISTORIES && repeated > HISTORIES / 2 && refused > HISTORIES, "{signed} {repeated} {refused}");
    assurance::report(PROMISE, "random requests up to the highest numbers", signed + repeated + refused);
}
