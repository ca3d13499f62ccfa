#!/usr/bin/env bash
# A throw-away SLURM on loopback in a scratch folder: as root, with no systemd and no cgroups.
#   cluster.sh up | down | status | env
# `up` starts what is not running, `down` kills every daemon by the pid that it wrote, every job,
# and removes the scratch folder. Knobs, from the environment:
#   SCRATCH=/tmp/pdmd-slurm  the scratch folder; SLURM's sockets want a short path
#   NODES=2 CPUS=8 MEM=20000 GPUS=4  nodes n1, n2 .. on this machine, each with that many of each
#   DBD=0     1: accounting with slurmdbd and MariaDB, account lab, QOS tiny (one CPU per job)
#   AUTH=none munge: an own munged
#   BASEPORT=17817  first of the ports: controller, -, slurmdbd, MariaDB, and 11 on for the nodes
#   MAXARRAY=2001   MaxArraySize: one more than the largest index of an array
#   MINJOBAGE=30    seconds that squeue remembers a finished job
#   KILLWAIT=5      seconds between SIGTERM and SIGKILL
#   MESSAGETIMEOUT=3  seconds that SLURM waits for an answer; a dead node is down after about
#                   twice that and 5 to 7 s more (SLURM's own default is 10)
# Debian packages: slurmctld slurmd slurm-client [munge] [slurmdbd mariadb-server].
set -euo pipefail

S=${SCRATCH:-/tmp/pdmd-slurm}
NODES=${NODES:-2} CPUS=${CPUS:-8} GPUS=${GPUS:-4} MEM=${MEM:-20000}
DBD=${DBD:-0} AUTH=${AUTH:-none} PORT=${BASEPORT:-17817}
MAXARRAY=${MAXARRAY:-2001} MINJOBAGE=${MINJOBAGE:-30} KILLWAIT=${KILLWAIT:-5} MESSAGETIMEOUT=${MESSAGETIMEOUT:-3}
HOST=$(hostname -s)
for variable in $(compgen -e SLURM_ || true); do unset "$variable"; done
export SLURM_CONF=$S/etc/slurm.conf

die() { echo "cluster.sh: $*" >&2; exit 1; }
alive() { # alive DAEMON: is the process of run/DAEMON.pid that daemon, and no zombie?
  local file=$S/run/$1.pid
  [ -s "$file" ] && [[ $(cat "/proc/$(cat "$file")/stat" 2>&1) = *"(${1%%.*}) "[!ZX]* ]]
}
await() { # await SECONDS COMMAND..
  local turns=$(($1 * 20)); shift
  for _ in $(seq 1 "$turns"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.05; done
  die "not in time: $*"
}

auth_lines() { # auth_lines OPTIONS..: of slurm.conf and slurmdbd.conf
  local info=${1:-}
  echo "AuthType=auth/$AUTH"
  [ "$AUTH" = none ] || info="socket=$S/run/munge.sock${info:+,$info}"
  [ -z "$info" ] || echo "AuthInfo=$info"
}
accounting_lines() {
  if [ "$DBD" = 0 ]; then echo AccountingStorageType=accounting_storage/none; return; fi
  cat <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT + 2))
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits,qos
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
CONF
  [ "$AUTH" = none ] || echo "AccountingStoragePass=$S/run/munge.sock"
}
node_lines() {
  for i in $(seq 1 "$NODES"); do
    echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 10 + i)) CPUs=$CPUS" \
      "Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEM" \
      "Gres=gpu:fake:$GPUS State=UNKNOWN"
  done
}
# cred_expire is also the time for which a requeued job waits (BeginTime); less than 5 s is refused.
slurm_conf() {
  cat <<CONF
ClusterName=scratch
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
$(auth_lines cred_expire=5)
CredType=cred/$AUTH
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd.%n.pid
SlurmdSpoolDir=$S/state/slurmd.%n
StateSaveLocation=$S/state/slurmctld
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
TaskPlugin=task/none
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=$KILLWAIT
MessageTimeout=$MESSAGETIMEOUT
MinJobAge=$MINJOBAGE
MaxArraySize=$MAXARRAY
SlurmctldTimeout=30
SlurmdTimeout=5
GresTypes=gpu
$(accounting_lines)
$(node_lines)
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=10 DefMemPerCPU=100 PriorityTier=1
PartitionName=gpu Default=YES
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
PartitionName=small MaxNodes=1 MaxTime=5 DefaultTime=1
CONF
}
slurmdbd_conf() {
  auth_lines
  cat <<CONF
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 2))
SlurmUser=root
PidFile=$S/run/slurmdbd.pid
LogFile=$S/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
CONF
}
gpus() { # fake devices, and gres.conf
  [ "$GPUS" -gt 0 ] || return 0
  for g in $(seq 0 $((GPUS - 1))); do
    [ -e "$S/dev/nvidia$g" ] || mknod -m 666 "$S/dev/nvidia$g" c 1 3
  done
  echo "NodeName=n[1-$NODES] Name=gpu Type=fake File=$S/dev/nvidia[0-$((GPUS - 1))]"
}
configure() {
  mkdir -p "$S"/{etc,log,run,dev,db,state/slurmctld}
  chmod 755 "$S"
  slurm_conf >"$S/etc/slurm.conf"
  gpus >"$S/etc/gres.conf"
  (umask 077 && slurmdbd_conf >"$S/etc/slurmdbd.conf")
}

start_munge() {
  [ "$AUTH" = munge ] && ! alive munged || return 0
  (umask 077 && head -c 1024 /dev/urandom >"$S/etc/munge.key")
  munged --force --key-file="$S/etc/munge.key" --socket="$S/run/munge.sock" \
    --pid-file="$S/run/munged.pid" --log-file="$S/log/munged.log" --seed-file="$S/run/munged.seed" \
    >/dev/null 2>&1 || die "munged does not start: $S/log/munged.log"
  await 10 test -S "$S/run/munge.sock"
}
sql() { mariadb --no-defaults -S "$S/run/mariadb.sock" -u root -e "$1"; }
start_mariadb() {
  alive mariadbd && return
  [ -d "$S/db/mysql" ] || mariadb-install-db --no-defaults --user=root --datadir="$S/db" \
    --skip-test-db --auth-root-authentication-method=normal >"$S/log/mariadb-install.log" 2>&1
  mariadbd --no-defaults --user=root --datadir="$S/db" --socket="$S/run/mariadb.sock" \
    --bind-address=127.0.0.1 --port=$((PORT + 3)) --pid-file="$S/run/mariadbd.pid" --skip-log-bin \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 >"$S/log/mariadbd.log" 2>&1 </dev/null &
  disown
  await 30 sql "select 1"
  sql "create database if not exists slurm;
    create user if not exists slurm@'127.0.0.1' identified by 'slurm';
    create user if not exists slurm@localhost identified by 'slurm';
    grant all on slurm.* to slurm@'127.0.0.1'; grant all on slurm.* to slurm@localhost"
}
account() {
  sacctmgr -n show cluster scratch | grep -q scratch && return
  sacctmgr -i add cluster scratch
  sacctmgr -i add qos tiny set MaxTRESPerJob=cpu=1
  sacctmgr -i add account lab cluster=scratch
  sacctmgr -i add user root account=lab cluster=scratch set qos=normal,tiny defaultqos=normal
  sacctmgr -i modify user root set defaultaccount=lab
}
start_accounting() {
  [ "$DBD" = 1 ] || return 0
  start_mariadb
  alive slurmdbd || slurmdbd
  await 30 sacctmgr -n show cluster
  account >"$S/log/account.log" || die "no accounts: $S/log/account.log"
}
start_nodes() {
  for i in $(seq 1 "$NODES"); do
    alive "slurmd.n$i" && continue
    mkdir -p "$S/state/slurmd.n$i"
    slurmd -N "n$i" -f "$SLURM_CONF" || die "node n$i does not start: $S/log/slurmd.n$i.log"
  done
}
all_answer() {
  [ "$(sinfo -h -N -p gpu -t idle,mixed,allocated -o %N | sort -u | wc -l)" = "$NODES" ]
}
up() {
  [ "$(id -u)" = 0 ] || die "needs root"
  alive slurmctld || configure
  start_munge
  start_accounting
  alive slurmctld || slurmctld
  await 20 scontrol ping
  start_nodes
  await 30 all_answer
}

daemons() { for name in "$S"/run/*.pid; do [ -e "$name" ] && basename "$name" .pid; done; }
job_pids() { # every slurmstepd, known by its log, and every process of a job
  find /proc/[0-9]*/fd -lname "$S/log/slurmd.*" 2>/dev/null | cut -d/ -f3 | sort -u
  grep -lzx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2>/dev/null |
    xargs -r grep -lz '^SLURM_JOB_ID=' 2>/dev/null | cut -d/ -f3
}
down() {
  [ -d "$S" ] || return 0
  local pids
  pids=$(for name in $(daemons); do alive "$name" && cat "$S/run/$name.pid"; done || true)
  for _ in 1 2 3; do
    pids="$pids $(job_pids || true)"
    for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
    pids=
  done
  rm -rf "$S"
}
status() {
  for name in $(daemons); do
    alive "$name" && echo "$name up $(cat "$S/run/$name.pid")" || echo "$name down"
  done
  alive slurmctld && sinfo -N -o '%N %P %T %c %m %G %E'
}

case ${1:-} in
  up | down | status) "$1" ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  *) sed -n '2,/^set/{/^#/s/^# \?//p}' "$0"; exit 2 ;;
esac
