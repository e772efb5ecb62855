# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_highwater_global_optspecs
    string join \n h/help V/version
end

function __fish_highwater_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_highwater_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_highwater_using_subcommand
    set -l cmd (__fish_highwater_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c highwater -n "__fish_highwater_needs_command" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_needs_command" -s V -l version -d 'Print version'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "check" -d 'Check configuration, keys and state without changing anything; exits 0 (ok), 1 (warnings) or 2 (errors)'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "init" -d 'Make a configuration and an identity key in a new directory'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "pkcs11" -d 'List PKCS#11 tokens; make, import, test and delete the keys on them'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "softsign" -d 'Make or import keys kept in files'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "start" -d 'Sign for the configured validators, in the foreground'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "state" -d 'Show, make, import, export or raise the watermark of a chain'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "status" -d 'Show what the running signer is doing; exits 0 (every chain signs) or 1 (not every chain signs)'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "version" -d 'Print the version'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "yubihsm" -d 'Find, set up and test YubiHSM 2 devices; make, import and back up the keys on them'
complete -c highwater -n "__fish_highwater_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand check" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand check" -l block-time -d 'Time from one block to the next, used to compute the load of a device' -r
complete -c highwater -n "__fish_highwater_using_subcommand check" -l before-start -d 'Check only configuration, permissions and state, use no device and no PIN, and exit 0 on warnings: for ExecStartPre'
complete -c highwater -n "__fish_highwater_using_subcommand check" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand check" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand init" -s n -l networks -d 'Networks to configure, separated by commas: core, cosmoshub, irishub, osmosis, sentinelhub' -r
complete -c highwater -n "__fish_highwater_using_subcommand init" -l height -d 'The key may have signed up to this height: never sign at or below it' -r
complete -c highwater -n "__fish_highwater_using_subcommand init" -l never-signed -d 'The key has never signed anything, anywhere'
complete -c highwater -n "__fish_highwater_using_subcommand init" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "delete" -d 'Delete one key'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "generate" -d 'Make a key that never leaves the device, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "import" -d 'Put the key from a file onto the token, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "keys" -d 'List the keys on a token'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "test" -d 'Sign a self-test repeatedly with a key, and show how long that takes'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "tokens" -d 'List the tokens of a module; needs no PIN'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and not __fish_seen_subcommand_from delete generate import keys test tokens help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l profile -d 'Device profile to use instead of a [[providers.pkcs11]]: a name in hsm-profiles/ or a path' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l module -d 'PKCS#11 module [default: the usual path in the profile]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l token -d 'Label of the token; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l serial -d 'Serial number of the token' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l pin-file -d 'Read the PIN from this file [default: `pin` in the configuration]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l pin-fd -d 'Read the PIN from this file descriptor' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l id -d 'The key\'s CKA_ID in hex' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l label -d 'The key\'s label' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -l yes -d 'Do not ask for confirmation'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from delete" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l profile -d 'Device profile to use instead of a [[providers.pkcs11]]: a name in hsm-profiles/ or a path' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l module -d 'PKCS#11 module [default: the usual path in the profile]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l token -d 'Label of the token; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l serial -d 'Serial number of the token' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l pin-file -d 'Read the PIN from this file [default: `pin` in the configuration]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l pin-fd -d 'Read the PIN from this file descriptor' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l id -d 'CKA_ID of the new key, in hex; must not be in use' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l label -d 'Label of the new key; must not be in use' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -s t -l type -d 'Ed25519 for consensus, secp256k1 for account' -r -f -a "account\t'secp256k1'
consensus\t'Ed25519'"
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l chain -d 'The chain that the key will sign for' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -l extractable -d 'Let the device export the key, wrapped by another of its keys; for devices that are backed up this way'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l profile -d 'Device profile to use instead of a [[providers.pkcs11]]: a name in hsm-profiles/ or a path' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l module -d 'PKCS#11 module [default: the usual path in the profile]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l token -d 'Label of the token; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l serial -d 'Serial number of the token' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l pin-file -d 'Read the PIN from this file [default: `pin` in the configuration]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l pin-fd -d 'Read the PIN from this file descriptor' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l id -d 'CKA_ID of the new key, in hex; must not be in use' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l label -d 'Label of the new key; must not be in use' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -s t -l type -d 'Ed25519 for consensus, secp256k1 for account' -r -f -a "account\t'secp256k1'
consensus\t'Ed25519'"
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l chain -d 'The chain that the key will sign for' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -s f -l format -d 'Format of the file [default: detected from its content]' -r -f -a "base64\t'One line of base64: a seed, an expanded key, a YubiHSM export, or Go\'s seed and public key'
json\t'CometBFT\'s priv_validator_key.json'"
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from keys" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from keys" -f -a "list" -d 'List the keys'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from keys" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l profile -d 'Device profile to use instead of a [[providers.pkcs11]]: a name in hsm-profiles/ or a path' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l module -d 'PKCS#11 module [default: the usual path in the profile]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l token -d 'Label of the token; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l serial -d 'Serial number of the token' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l pin-file -d 'Read the PIN from this file [default: `pin` in the configuration]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l pin-fd -d 'Read the PIN from this file descriptor' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l id -d 'The key\'s CKA_ID in hex' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l label -d 'The key\'s label' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l count -d 'Number of signatures' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from tokens" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from tokens" -l profile -d 'Device profile to use instead of the configuration: a name in hsm-profiles/ or a path' -r
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from tokens" -l module -d 'PKCS#11 module to use instead of the configuration' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from tokens" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from tokens" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "delete" -d 'Delete one key'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Make a key that never leaves the device, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "import" -d 'Put the key from a file onto the token, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "keys" -d 'List the keys on a token'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "test" -d 'Sign a self-test repeatedly with a key, and show how long that takes'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "tokens" -d 'List the tokens of a module; needs no PIN'
complete -c highwater -n "__fish_highwater_using_subcommand pkcs11; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and not __fish_seen_subcommand_from keygen import help" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and not __fish_seen_subcommand_from keygen import help" -f -a "keygen" -d 'Make a new key'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and not __fish_seen_subcommand_from keygen import help" -f -a "import" -d 'Convert an existing key file to the form that `path` of a [[providers.softsign]] takes'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and not __fish_seen_subcommand_from keygen import help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from keygen" -s t -l type -d 'Ed25519 for consensus, secp256k1 for account' -r -f -a "account\t'secp256k1'
consensus\t'Ed25519'"
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from keygen" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from import" -s f -l format -d 'Format of the existing file [default: detected from its content]' -r -f -a "base64\t'One line of base64: a seed, an expanded key, a YubiHSM export, or Go\'s seed and public key'
json\t'CometBFT\'s priv_validator_key.json'"
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from import" -s t -l type -d 'Ed25519 for consensus, secp256k1 for account' -r -f -a "account\t'secp256k1'
consensus\t'Ed25519'"
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from help" -f -a "keygen" -d 'Make a new key'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from help" -f -a "import" -d 'Convert an existing key file to the form that `path` of a [[providers.softsign]] takes'
complete -c highwater -n "__fish_highwater_using_subcommand softsign; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand start" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand start" -l log-format -d 'How log lines on standard error look' -r -f -a "json\t'One JSON object a line'
text\t'Time, level, message and `key=value` pairs'"
complete -c highwater -n "__fish_highwater_using_subcommand start" -s v -l verbose -d 'Log connection attempts and pings too'
complete -c highwater -n "__fish_highwater_using_subcommand start" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -f -a "export" -d 'Write the mark for another program and retire the state file: `start` refuses it until `import`'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -f -a "import" -d 'Import the state of tmkms, of CometBFT, or of a Highwater on another machine'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -f -a "init" -d 'Make the state file of a chain that has none'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -f -a "raise" -d 'Never sign at or below a height again'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -f -a "show" -d 'Show the mark, even while a signer uses it'
complete -c highwater -n "__fish_highwater_using_subcommand state; and not __fish_seen_subcommand_from export import init raise show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from export" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from export" -l chain -d 'Chain id; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from export" -l format -d 'Format to write' -r -f -a "cometbft\t'priv_validator_state.json'
tmkms\t'tmkms\'s state file'"
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from export" -s o -l output -d 'Write to this new file [default: for tmkms, over the tombstone at `state_file`; for cometbft, to standard output]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from export" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from import" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from import" -l chain -d 'Chain id; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from import" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from import" -l i-checked-the-height -d 'Confirm that the file is not behind what the chain shows; needed if it is a copy, or older than the last boot'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from init" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from init" -l chain -d 'Chain id; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from init" -l height -d 'The key may have signed up to this height: never sign at or below it' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from init" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from init" -l never-signed -d 'The key has never signed anything, anywhere'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from raise" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from raise" -l chain -d 'Chain id; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from raise" -l height -d 'Never sign at or below this height again' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from raise" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from raise" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from show" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from show" -l chain -d 'Chain id; required if the configuration has several' -r
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "export" -d 'Write the mark for another program and retire the state file: `start` refuses it until `import`'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "import" -d 'Import the state of tmkms, of CometBFT, or of a Highwater on another machine'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "init" -d 'Make the state file of a chain that has none'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "raise" -d 'Never sign at or below a height again'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show the mark, even while a signer uses it'
complete -c highwater -n "__fish_highwater_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand status" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand status" -l socket -d 'Control socket of the signer [default: the one for the configuration file, in $RUNTIME_DIRECTORY, beside that file, or in /run/highwater]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand status" -l watch -d 'Refresh every second until interrupted'
complete -c highwater -n "__fish_highwater_using_subcommand status" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand status" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand version" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and not __fish_seen_subcommand_from detect keys setup test help" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and not __fish_seen_subcommand_from detect keys setup test help" -f -a "detect" -d 'Find the configured devices; needs no password'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and not __fish_seen_subcommand_from detect keys setup test help" -f -a "keys" -d 'List, make, import and back up the keys on a device'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and not __fish_seen_subcommand_from detect keys setup test help" -f -a "setup" -d 'Wipe a device and set it up from 24 words'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and not __fish_seen_subcommand_from detect keys setup test help" -f -a "test" -d 'Sign a self-test repeatedly with a key, and show how long that takes'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and not __fish_seen_subcommand_from detect keys setup test help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from detect" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from detect" -l device -d 'Serial number of the device, or `addr` of its connector, if the configuration has several devices' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from detect" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from detect" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from keys" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from keys" -f -a "export" -d 'Write an encrypted backup of a key to a new file'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from keys" -f -a "generate" -d 'Make a key in the device, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from keys" -f -a "import" -d 'Put a key from a file or a backup into the device, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from keys" -f -a "list" -d 'List the keys'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from keys" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l device -d 'Serial number of the device, or `addr` of its connector, if the configuration has several devices' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l auth-key -d 'Log in with this authentication key [default: `auth.key` in the configuration]' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l password-file -d 'Read its password from this file [default: `auth` in the configuration]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l password-fd -d 'Read its password from this file descriptor' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l phrase-fd -d 'Read those words from this file descriptor [default: ask on the terminal]' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l secrets-fd -d 'Show words, passwords and wrap key on this file descriptor [default: the terminal]' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l yes-wipe -d 'Do not ask before wiping the device with this serial number' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -s w -l write-report -d 'Write a report of the setup to this new file' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -s p -l print-only -d 'Show what is derived, but do not change the device'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -s r -l restore -d 'Use the words of an earlier setup by Highwater or tmkms'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from setup" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -s c -l config -d 'Configuration file [default: $TMKMS_CONFIG_FILE, then ./tmkms.toml]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -l device -d 'Serial number of the device, or `addr` of its connector, if the configuration has several devices' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -l auth-key -d 'Log in with this authentication key [default: `auth.key` in the configuration]' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -l password-file -d 'Read its password from this file [default: `auth` in the configuration]' -r -F
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -l password-fd -d 'Read its password from this file descriptor' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -l count -d 'Number of signatures' -r
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -l json -d 'Print JSON'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from help" -f -a "detect" -d 'Find the configured devices; needs no password'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from help" -f -a "keys" -d 'List, make, import and back up the keys on a device'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from help" -f -a "setup" -d 'Wipe a device and set it up from 24 words'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from help" -f -a "test" -d 'Sign a self-test repeatedly with a key, and show how long that takes'
complete -c highwater -n "__fish_highwater_using_subcommand yubihsm; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "check" -d 'Check configuration, keys and state without changing anything; exits 0 (ok), 1 (warnings) or 2 (errors)'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "init" -d 'Make a configuration and an identity key in a new directory'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "pkcs11" -d 'List PKCS#11 tokens; make, import, test and delete the keys on them'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "softsign" -d 'Make or import keys kept in files'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "start" -d 'Sign for the configured validators, in the foreground'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "state" -d 'Show, make, import, export or raise the watermark of a chain'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "status" -d 'Show what the running signer is doing; exits 0 (every chain signs) or 1 (not every chain signs)'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "version" -d 'Print the version'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "yubihsm" -d 'Find, set up and test YubiHSM 2 devices; make, import and back up the keys on them'
complete -c highwater -n "__fish_highwater_using_subcommand help; and not __fish_seen_subcommand_from check init pkcs11 softsign start state status version yubihsm help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from pkcs11" -f -a "delete" -d 'Delete one key'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from pkcs11" -f -a "generate" -d 'Make a key that never leaves the device, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from pkcs11" -f -a "import" -d 'Put the key from a file onto the token, prove that it signs, and print the configuration for it'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from pkcs11" -f -a "keys" -d 'List the keys on a token'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from pkcs11" -f -a "test" -d 'Sign a self-test repeatedly with a key, and show how long that takes'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from pkcs11" -f -a "tokens" -d 'List the tokens of a module; needs no PIN'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from softsign" -f -a "keygen" -d 'Make a new key'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from softsign" -f -a "import" -d 'Convert an existing key file to the form that `path` of a [[providers.softsign]] takes'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "export" -d 'Write the mark for another program and retire the state file: `start` refuses it until `import`'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "import" -d 'Import the state of tmkms, of CometBFT, or of a Highwater on another machine'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "init" -d 'Make the state file of a chain that has none'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "raise" -d 'Never sign at or below a height again'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "show" -d 'Show the mark, even while a signer uses it'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from yubihsm" -f -a "detect" -d 'Find the configured devices; needs no password'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from yubihsm" -f -a "keys" -d 'List, make, import and back up the keys on a device'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from yubihsm" -f -a "setup" -d 'Wipe a device and set it up from 24 words'
complete -c highwater -n "__fish_highwater_using_subcommand help; and __fish_seen_subcommand_from yubihsm" -f -a "test" -d 'Sign a self-test repeatedly with a key, and show how long that takes'
