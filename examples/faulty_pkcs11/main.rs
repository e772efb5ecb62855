//! A PKCS#11 module that fails on command, in front of a real one. Only for tests: it shows how Highwater handles a device
//! that answers wrongly, late, or never.
//!
//! It loads the module that `HIGHWATER_FAULTY_TARGET` names and returns that module's functions, but replaces some of them.
//! Each of these looks for a line with its call's name in the file that `HIGHWATER_FAULTY_PLAN` names. Lines are played in
//! their order: a call takes the first line if that has its name, and removes it. A line that begins with `every` stays,
//! and holds up none of the lines below it. So "one session fails, then the token has no counters for ever" is
//! `every tokeninfo clear 0x70000` and `open rv 0x30`.
//!
//! | call | function |
//! | --- | --- |
//! | `initialize`, `finalize`, `slots`, `tokeninfo`, `mechanisms` | of the module and its slots |
//! | `open`, `login`, `context` | C_OpenSession; C_Login of the user; C_Login for one use of a key |
//! | `find`, `findpublic`, `attribute` | C_FindObjectsInit, that of public keys, C_GetAttributeValue |
//! | `generate`, `create`, `destroy` | C_GenerateKeyPair, C_CreateObject, C_DestroyObject |
//! | `init`, `sign`, `length` | C_SignInit; C_Sign with a buffer; C_Sign that only asks for the length |
//! | `point`, `params`, `info`, `type`, `always` | an attribute as it is shown; for these only `every` makes sense |
//!
//! ```text
//! (any call)  rv 0x30         answers this CK_RV; C_Sign first ends the token's operation, as the standard says
//!             stuck 0x30      answers this CK_RV and leaves the token's operation open
//!             after 0x30      makes the call, then answers this CK_RV
//!             delay 900       answers correctly, after so many milliseconds
//!             postdelay 900   makes the call, then waits so many milliseconds
//!             hang            never answers
//!             segv, abort     dies of SIGSEGV, of SIGABRT
//!             exit 3          ends its process with this code
//!             print TEXT      prints a line on stdout and stderr, then answers correctly
//!             warn TEXT       prints a line on stderr, then answers correctly
//!             spy             tries what a module must not do, then answers correctly
//!             pass            answers correctly
//! initialize  nolock          CKR_CANT_LOCK if it is to lock with the system's means
//!             nullonly        CKR_ARGUMENTS_BAD for any argument
//!             wants TEXT      CKR_ARGUMENTS_BAD unless pReserved is this text
//!             execmust        starts a program, and fails with CKR_FUNCTION_FAILED if it cannot
//! tokeninfo   clear 0x70000   without these flags; `set` with them
//!             nulltime        utcTime of zeros; `badtime` of letters
//!             badinfo         letters in the time, numbers that no token has, text that is not UTF-8
//!             pinlen 4 8      these lengths of a PIN
//! mechanisms  without 0x1057  not listed
//! find        hide            nothing is found
//! sign        flip            a wrong bit in the signature
//!             hex 3006…       these bytes
//!             nolen, oneshot, lenzero   as `length rv 0x7`, `length end`, `length zero`
//! length      end             answers rightly, and ends the operation
//!             zero            answers 0
//! (attribute) absent          CKR_ATTRIBUTE_TYPE_INVALID
//!             hex 06…         these bytes
//!             raw, octet, bit a point bare, as an OCTET STRING, as a BIT STRING
//! ```
//!
//! The plan's `.targets` lists what it spies on, one on each line: `read PATH`, `write PATH`, `tcp ADDRESS`, `udp ADDRESS`,
//! `unix PATH`, or `environment`, of which it notes the names.
//!
//! The plan's `.log` notes each call and the reaction to it. To change a plan, hold the lock of its `.lock` and replace the
//! plan by renaming, so that no crash leaves half a plan.
#![allow(unsafe_code, missing_docs, reason = "a PKCS#11 module is a C interface")]

mod plan;
mod shapes;
mod spy;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE_PTR, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_MECHANISM_PTR, CK_NOTIFY,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_ULONG, CK_ULONG_PTR,
    CK_USER_TYPE, CK_UTF8CHAR_PTR, CKF_OS_LOCKING_OK, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL, CKR_CANT_LOCK,
    CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_OK, CKR_OPERATION_NOT_INITIALIZED, CKU_CONTEXT_SPECIFIC, Pkcs11,
};
use plan::{next, note};
use std::{
    env,
    ffi::{CStr, c_void},
    mem,
    process::{Command, Stdio},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

struct Functions {
    real: CK_FUNCTION_LIST,
    served: CK_FUNCTION_LIST,
}

/// A C library has no other place for its state.
static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
/// Whether a question for a length has ended the operation.
static ENDED: AtomicBool = AtomicBool::new(false);
/// Longer than any signature.
const SCRATCH_BYTES: usize = 1024;

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
    served.C_Initialize = Some(initialize);
    served.C_Finalize = Some(finalize);
    served.C_GetSlotList = Some(slots);
    served.C_GetTokenInfo = Some(shapes::token_info);
    served.C_GetMechanismList = Some(shapes::mechanisms);
    served.C_OpenSession = Some(open_session);
    served.C_Login = Some(login);
    served.C_FindObjectsInit = Some(shapes::find);
    served.C_GetAttributeValue = Some(shapes::attributes);
    served.C_GenerateKeyPair = Some(generate);
    served.C_CreateObject = Some(create);
    served.C_DestroyObject = Some(destroy);
    served.C_SignInit = Some(sign_init);
    served.C_Sign = Some(sign);
    Ok(Functions { real: *real, served })
}

/// The target's functions. They are set before anyone can call one of ours.
fn real() -> &'static CK_FUNCTION_LIST {
    &FUNCTIONS.get().and_then(Option::as_ref).expect("the list was handed out").real
}

/// A function that plays its line of the plan and passes its arguments on.
macro_rules! passed_on {
    ($name:ident, $function:ident, $call:literal, $($argument:ident: $kind:ty),*) => {
        unsafe extern "C" fn $name($($argument: $kind),*) -> CK_RV {
            let function = real().$function.expect("every module has it");
            // SAFETY: the caller's own arguments, passed on.
            next($call).or(|| unsafe { function($($argument),*) })
        }
    };
}

passed_on!(finalize, C_Finalize, "finalize", reserved: *mut c_void);
passed_on!(slots, C_GetSlotList, "slots", present: CK_BBOOL, list: *mut CK_SLOT_ID, count: CK_ULONG_PTR);
passed_on!(open_session, C_OpenSession, "open", slot: CK_SLOT_ID, flags: CK_FLAGS, application: *mut c_void,
    notify: CK_NOTIFY, session: CK_SESSION_HANDLE_PTR);
passed_on!(generate, C_GenerateKeyPair, "generate", session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR,
    public: *mut CK_ATTRIBUTE, public_count: CK_ULONG, private: *mut CK_ATTRIBUTE, private_count: CK_ULONG,
    public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE);
passed_on!(create, C_CreateObject, "create", session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
    object: *mut CK_OBJECT_HANDLE);
passed_on!(destroy, C_DestroyObject, "destroy", session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
passed_on!(sign_init, C_SignInit, "init", session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE);

unsafe extern "C" fn initialize(arguments: *mut c_void) -> CK_RV {
    let function = real().C_Initialize.expect("every module has it");
    // SAFETY: null or the standard's structure, says the caller.
    let given = unsafe { arguments.cast::<CK_C_INITIALIZE_ARGS>().as_ref() };
    let step = next("initialize");
    let refusal = match step.words()[..] {
        ["nolock"] if given.is_some_and(|given| given.flags & CKF_OS_LOCKING_OK != 0) => Some(CKR_CANT_LOCK),
        ["nullonly"] if given.is_some() => Some(CKR_ARGUMENTS_BAD),
        ["execmust"] if !starts_a_program() => Some(CKR_FUNCTION_FAILED),
        ["wants", ..] => {
            let text = given.filter(|given| !given.pReserved.is_null());
            // SAFETY: a text that ends with a zero, as the plan expects it of the caller.
            let text =
                text.map(|given| unsafe { CStr::from_ptr(given.pReserved.cast()) }.to_string_lossy().into_owned());
            note(&format!("reserved {text:?}"));
            if text.as_deref() != Some(&*step.words()[1..].join(" ")) {
                return CKR_ARGUMENTS_BAD;
            }
            // The target takes none.
            // SAFETY: null is always allowed.
            return unsafe { function(ptr::null_mut()) };
        }
        _ => None,
    };
    // SAFETY: the caller's own arguments, passed on.
    refusal.unwrap_or_else(|| step.or(|| unsafe { function(arguments) }))
}

fn starts_a_program() -> bool {
    Command::new("/bin/true").stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: CK_UTF8CHAR_PTR,
    length: CK_ULONG,
) -> CK_RV {
    let function = real().C_Login.expect("every module has it");
    let call = if user == CKU_CONTEXT_SPECIFIC { "context" } else { "login" };
    // SAFETY: the caller's own arguments, passed on.
    next(call).or(|| unsafe { function(session, user, pin, length) })
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
    if signature.is_null() {
        let step = next("length");
        match step.words()[..] {
            ["zero"] => {
                // SAFETY: the caller asks for the length there.
                unsafe { *length = 0 };
                return CKR_OK;
            }
            ["end"] => {
                let answer = call();
                let (mut scratch, mut room) = ([0; SCRATCH_BYTES], SCRATCH_BYTES as CK_ULONG);
                // SAFETY: the caller's own arguments, and a buffer of this length.
                unsafe { function(session, data, data_length, scratch.as_mut_ptr(), &raw mut room) };
                ENDED.store(true, Ordering::Relaxed);
                return answer;
            }
            _ => return step.or(call),
        }
    }
    if ENDED.swap(false, Ordering::Relaxed) {
        return CKR_OPERATION_NOT_INITIALIZED;
    }
    let step = next("sign");
    match step.words()[..] {
        ["rv", _] => {
            call();
            step.or(|| CKR_OK)
        }
        ["flip"] => {
            let answer = call();
            if answer == CKR_OK {
                // SAFETY: a call that succeeds has written at least one byte there.
                unsafe { *signature ^= 1 };
            }
            answer
        }
        ["hex", bytes] => {
            // SAFETY: the caller's own length, which says how much room there is.
            let room = unsafe { *length };
            call();
            let bytes = shapes::bytes(bytes);
            // SAFETY: the caller takes the length of the signature from there.
            unsafe { *length = bytes.len() as CK_ULONG };
            if bytes.len() as CK_ULONG > room {
                return CKR_BUFFER_TOO_SMALL;
            }
            // SAFETY: there is room for as many bytes.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), signature, bytes.len()) };
            CKR_OK
        }
        _ => step.or(call),
    }
}
