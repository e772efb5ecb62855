//! SIGKILL at work, again and again, while two nodes of one chain ask for conflicting messages.

use crate::{
    CHAIN, PROMISE,
    history::{Ask, History},
    support::{
        assurance::report,
        mock_node::{MockNode, Session},
        signer::Home,
    },
};
use std::{env, sync::Mutex, thread, time::Duration};

/// How often, unless `HIGHWATER_KILLS` says otherwise.
const KILLS: u32 = 20;
/// How many of the last places get conflicting requests after a restart.
const LOOK_BACK: i64 = 2;

/// Asks for round after round, from `height` on, until the link is gone. Gives the height it came to.
fn ask_for_ever(session: &mut Session, mut height: i64, block: u8, history: &Mutex<History>) -> i64 {
    loop {
        for ask in Ask::round(height, block) {
            let mut noted = History::default();
            match ask.ask(session, CHAIN, &mut noted) {
                Ok(_) => history.lock().unwrap().merge(&noted),
                Err(_) => return height,
            }
        }
        height += 1;
    }
}

#[test]
fn no_kill_at_work_leads_to_a_double_sign() {
    let kills = env::var("HIGHWATER_KILLS").map_or(KILLS, |kills| kills.parse().expect("HIGHWATER_KILLS is a number"));
    let home = Home::new();
    let nodes = ["one.sock", "two.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.chain(CHAIN, "").node(&nodes[0].address(), CHAIN, "").node(&nodes[1].address(), CHAIN, "").init();
    let history = Mutex::new(History::default());
    let (mut height, mut conflicts, mut lives_with_signatures) = (1, 0, 0);
    for kill in 0..kills {
        let mut signer = home.start();
        let mut sessions = nodes.each_ref().map(|node| node.accept().unwrap());

        // First the conflicts, with what had left and with what was asked for when the signer died. They are for other
        // blocks in each life: a signer that is killed at once stays at what was asked here in its last life.
        let first = 3 + 2 * u8::try_from(kill % 100).unwrap();
        for place in (height - LOOK_BACK).max(1)..=height {
            for (session, block) in sessions.iter_mut().zip(first..) {
                for ask in Ask::round(place, block) {
                    let history = &mut history.lock().unwrap();
                    let left = history.has(ask.place());
                    let answer = ask.ask(session, CHAIN, history).unwrap();
                    assert!(!(left && answer.is_ok()), "a conflict with what had left was signed: {ask:?}");
                    conflicts += u64::from(left);
                }
            }
        }
        height += 1;
        let before = history.lock().unwrap().len();

        // Spread over everything that a request goes through, which takes about a millisecond.
        let moment = Duration::from_micros(3000 + u64::from(kill) * 7919 % 20_000);
        let ([one, two], seen) = (&mut sessions, &history);
        height = thread::scope(|scope| {
            let reached = [(one, 1), (two, 2)]
                .map(|(session, block)| scope.spawn(move || ask_for_ever(session, height, block, seen)));
            thread::sleep(moment);
            signer.sigkill();
            reached.map(|thread| thread.join().unwrap()).into_iter().max().unwrap()
        });
        let history = history.lock().unwrap();
        lives_with_signatures += u32::from(history.len() > before);
        history.assert_covered(&home, CHAIN);
    }
    assert!(lives_with_signatures * 2 > kills, "most kills met a signer at work: {lives_with_signatures} of {kills}");
    report(PROMISE, "kills of a signer at work for two nodes that want different blocks", kills.into());
    report(
        PROMISE,
        "messages that left it, none of them for a place that had one",
        history.into_inner().unwrap().len(),
    );
    report(PROMISE, "conflicts refused after those kills", conflicts);
}
