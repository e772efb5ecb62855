//! A PKCS#11 module that fails on command, in front of a real one. Only for tests: it shows how Highwater handles a device
//! that answers wrongly, late, or never.
//!
//! It loads the module that `HIGHWATER_FAULTY_TARGET` names and returns that module's functions, but replaces four of them.
//! Each of these four removes the first line of the file that `HIGHWATER_FAULTY_PLAN` names, if that line begins with the
//! call's name:
//!
//! ```text
//! open|login|init|sign  rv 0x30      answers this CK_RV; C_Sign first ends the token's operation, as the standard says
//!                       stuck 0x30   answers this CK_RV and leaves the token's operation open
//!                       delay 900    answers correctly, after so many milliseconds
//!                       flip         C_Sign: a wrong bit in the signature
//!                       hang         never answers
//!                       segv         dies of SIGSEGV
//!                       spy          tries what a module must not do, then answers correctly
//!                       pass         answers correctly
//! ```
//!
//! The plan's `.targets` lists what it spies on, one on each line: `read PATH`, `write PATH`, `tcp ADDRESS`, `udp ADDRESS`,
//! `unix PATH`, or `environment`, of which it notes the names.
//!
//! A line that begins with `every` stays. The plan's `.log` notes each call and the reaction to it. To change a plan, hold
//! the lock of its `.lock` and replace the plan by renaming, so that no crash leaves half a plan.
#![allow(unsafe_code, missing_docs, reason = "a PKCS#11 module is a C interface")]

use cryptoki_sys::{
    CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_MECHANISM_PTR, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_ULONG, CK_ULONG_PTR, CK_USER_TYPE, CK_UTF8CHAR_PTR, CKR_GENERAL_ERROR,
    CKR_OK, Pkcs11,
};
use std::{
    env,
    ffi::c_void,
    fs::{self, File},
    io::{self, Write as _},
    mem,
    net::{TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::PathBuf,
    ptr,
    sync::OnceLock,
    thread,
    time::Duration,
};

struct Functions {
    real: CK_FUNCTION_LIST,
    served: CK_FUNCTION_LIST,
}

/// A C library has no other place for its state.
static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();

/// How to react to a call.
enum Fault {
    Answer(CK_RV),
    Delay(Duration),
    Flip,
    Hang,
    None,
    Segv,
    Spy,
    Stuck(CK_RV),
}

/// The one function that a module has to export. There is no `C_GetInterface`, so callers speak version 2.40.
///
/// # Safety
/// `list` is null or points to the place for the list's address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let functions = FUNCTIONS.get_or_init(|| load().inspect_err(|error| note(error)).ok());
    let (Some(functions), false) = (functions, list.is_null()) else { return CKR_GENERAL_ERROR };
    // SAFETY: not null, and the caller guarantees the rest. The list is never written to or freed.
    unsafe { *list = ptr::from_ref(&functions.served).cast_mut() };
    CKR_OK
}

fn load() -> Result<Functions, String> {
    let path = env::var_os("HIGHWATER_FAULTY_TARGET").ok_or("HIGHWATER_FAULTY_TARGET is not set")?;
    let mut list = ptr::null_mut();
    // SAFETY: the tests name a PKCS#11 module, whose functions have these types; it is never unloaded.
    let answer = unsafe {
        let module = mem::ManuallyDrop::new(Pkcs11::new(path).map_err(|error| error.to_string())?);
        module.C_GetFunctionList(&raw mut list)
    };
    // SAFETY: a module that answers CKR_OK has set the pointer to a list that lives as long as it does.
    let real = unsafe { list.as_ref() }.filter(|_| answer == CKR_OK).ok_or("the target has no function list")?;
    let mut served = *real;
    served.C_OpenSession = Some(open_session);
    served.C_Login = Some(login);
    served.C_SignInit = Some(sign_init);
    served.C_Sign = Some(sign);
    Ok(Functions { real: *real, served })
}

/// The target's functions. They are set before anyone can call one of ours.
fn real() -> &'static CK_FUNCTION_LIST {
    &FUNCTIONS.get().and_then(Option::as_ref).expect("the list was handed out").real
}

unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: CK_SESSION_HANDLE_PTR,
) -> CK_RV {
    let function = real().C_OpenSession.expect("every module has it");
    // SAFETY: the caller's own arguments, passed on.
    play("open", || unsafe { function(slot, flags, application, notify, session) })
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
) -> CK_RV {
    let function = real().C_Login.expect("every module has it");
    // SAFETY: the caller's own arguments, passed on.
    play("login", || unsafe { function(session, user, pin, length) })
}

unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let function = real().C_SignInit.expect("every module that signs has it");
    // SAFETY: the caller's own arguments, passed on.
    play("init", || unsafe { function(session, mechanism, key) })
}

unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: CK_BYTE_PTR,
    data_length: CK_ULONG,
    signature: CK_BYTE_PTR,
    length: CK_ULONG_PTR,
) -> CK_RV {
    let function = real().C_Sign.expect("every module that signs has it");
    // SAFETY: the caller's own arguments, passed on.
    let call = || unsafe { function(session, data, data_length, signature, length) };
    // A call that only asks for the length is not a signature.
    if signature.is_null() {
        return call();
    }
    match next("sign") {
        Fault::Answer(answer) => {
            call();
            answer
        }
        Fault::Flip => {
            let answer = call();
            if answer == CKR_OK {
                // SAFETY: a call that succeeds has written at least one byte there.
                unsafe { *signature ^= 1 };
            }
            answer
        }
        fault => fault.or(call),
    }
}

fn play(name: &str, call: impl FnOnce() -> CK_RV) -> CK_RV {
    next(name).or(call)
}

impl Fault {
    fn parse(words: &[&str]) -> Option<Self> {
        let rv = |text: &str| CK_RV::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        match words {
            ["rv", number] => rv(number).map(Self::Answer),
            ["stuck", number] => rv(number).map(Self::Stuck),
            ["delay", millis] => millis.parse().ok().map(Duration::from_millis).map(Self::Delay),
            ["flip"] => Some(Self::Flip),
            ["hang"] => Some(Self::Hang),
            ["segv"] => Some(Self::Segv),
            ["spy"] => Some(Self::Spy),
            ["pass"] => Some(Self::None),
            _ => None,
        }
    }

    /// Plays the fault, or makes the call.
    fn or(self, call: impl FnOnce() -> CK_RV) -> CK_RV {
        match self {
            Self::Answer(answer) | Self::Stuck(answer) => return answer,
            Self::Delay(time) => thread::sleep(time),
            Self::Flip | Self::None => {}
            Self::Hang => loop {
                thread::sleep(Duration::from_secs(1));
            },
            Self::Spy => spy(),
            // SAFETY: none: it writes to an unmapped address, so that the kernel ends the process.
            Self::Segv => unsafe { ptr::without_provenance_mut::<u64>(8).write_volatile(0) },
        }
        call()
    }
}

fn plan_file(extension: &str) -> Option<PathBuf> {
    env::var_os("HIGHWATER_FAULTY_PLAN").map(|path| PathBuf::from(path).with_extension(extension))
}

/// Removes the fault for this call from the plan. Without a plan there is no fault.
fn next(call: &str) -> Fault {
    let line = take(call).ok().flatten();
    let words = line.as_deref().unwrap_or_default().split_whitespace();
    let words: Vec<_> = words.skip_while(|word| *word == "every").skip(1).collect();
    note(&format!("{call} {}", words.join(" ")));
    Fault::parse(&words).unwrap_or(Fault::None)
}

fn take(call: &str) -> io::Result<Option<String>> {
    let path = env::var_os("HIGHWATER_FAULTY_PLAN").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    let lock = File::create(path.with_extension("lock"))?;
    lock.lock()?;
    let plan = fs::read_to_string(&path)?;
    let (line, rest) = plan.split_once('\n').unwrap_or((&plan, ""));
    let mut words = line.split_whitespace().peekable();
    let stays = words.next_if_eq(&"every").is_some();
    if words.next() != Some(call) {
        return Ok(None);
    }
    if !stays {
        let aside = path.with_extension("aside");
        fs::write(&aside, rest)?;
        fs::rename(&aside, &path)?;
    }
    Ok(Some(line.into()))
}

/// Tries every target and notes the result.
fn spy() {
    let targets = plan_file("targets").and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    for target in targets.lines() {
        let (kind, what) = target.split_once(' ').unwrap_or((target, ""));
        let tried = match kind {
            "read" => File::open(what).map(drop),
            "write" => File::options().append(true).open(what).map(drop),
            "tcp" => TcpStream::connect(what).map(drop),
            "udp" => UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"spied", what).map(drop)),
            "unix" => UnixStream::connect(what).map(drop),
            _ => {
                env::vars_os().for_each(|(name, _)| note(&format!("variable {}", name.display())));
                Ok(())
            }
        };
        let end = tried.map_or_else(|error| error.to_string(), |()| "done".into());
        note(&format!("spied {target}: {end}"));
    }
}

/// Notes what happened. If a note cannot be written, the test that looks for it fails.
fn note(text: &str) {
    let log = plan_file("log").map(|path| File::options().create(true).append(true).open(path));
    if let Some(Ok(mut log)) = log {
        let _ = log.write_all(format!("{}\n", text.trim_end()).as_bytes());
    }
}
