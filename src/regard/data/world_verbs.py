"""Hold the verbs and scenes of the demo's world: who does what to whom, and for which reasons.

A verb is written ``base [past [-ing form]] = infinitive [past participle, third person singular and plural of the
present, stem of the future] marks``; what the regular rules of `world_forms` give is left out. A particle follows the
English verb after ``+`` and a French preposition the French verb after ``+``; the mark ``ê`` says that the past is
made with `être`.

A scene joins verbs to kinds of subject and object. Its four lists are the reasons: ``unable`` keeps the subject from
doing it, ``forbidding`` is what about the object keeps it from being done; ``eager`` and ``inviting`` are why it is
done after all. A scene marked inverse tells of shunning, where a fault is the reason to do it.
"""

VERBS = """
    cross = traverser
    follow = suivre suivi suit suivent suivr
    leave left = quitter
    avoid = éviter
    enter = entrer + dans ê
    explore = explorer
    visit = visiter
    reach = atteindre atteint atteint atteignent atteindr
    climb = escalader
    jump + over = sauter
    push = pousser
    pull = tirer
    move = déplacer
    drag dragged dragging = traîner
    lift = soulever soulevé soulève soulèvent soulèver
    transport = transporter
    carry = porter
    steal stole = voler
    hide hid = cacher
    knock + over = renverser
    take took + away = emporter
    touch = toucher
    destroy = détruire détruit détruit détruisent détruir
    eat ate = manger
    taste = goûter
    finish = finir fini finit finissent finir
    swallow = avaler
    refuse = refuser
    smell = sentir senti sent sentent sentir
    prepare = préparer
    wear wore = porter
    buy bought = acheter acheté achète achètent achèter
    choose chose = choisir choisi choisit choisissent choisir
    try + on = essayer essayé essaie essaient essaier
    keep kept = garder
    sell sold = vendre vendu vend vendent vendr
    read read = lire lu lit lisent lir
    translate = traduire traduit traduit traduisent traduir
    understand understood = comprendre compris comprend comprennent comprendr
    copy = copier
    repair = réparer
    use = utiliser
    throw threw + away = jeter jeté jette jettent jetter
    wash = laver
    clean = nettoyer nettoyé nettoie nettoient nettoier
    cut cut cutting = couper
    pick = cueillir cueilli cueille cueillent cueiller
    water = arroser
    paint = peindre peint peint peignent peindr
    photograph = photographier
    draw drew = dessiner
    chase = poursuivre poursuivi poursuit poursuivent poursuivr
    watch = regarder
    look + for = chercher
    find found = trouver
    protect = protéger protégé protège protègent protéger
    block = bloquer
    go went + to = aller allé va vont ir + à ê
    arrive + at = arriver + à ê
    return + to = retourner + à ê
    come came + out of = sortir sorti sort sortent sortir + de ê
    fall fell + into = tomber + dans ê
    stay + in = rester + dans ê
    sleep slept + in = dormir dormi dort dorment dormir + dans
    live + in = habiter + dans
"""

# Verbs of the scenes that tell a shape with no reason: subject kinds, verbs, object kinds.
DEEDS = """
    animal people ; chase, protect, watch, look for ; animal critter
    critter ; chase, watch ; critter
    people ; watch, find, look for, draw, photograph ; boat vehicle cart people
    hauler vehicle ; block ; road passage
    animal critter people ; find, look for ; object
    people ; cut, water, protect ; tree shrub
"""

JOURNEYS = """
    animal critter people ; come out of, stay in, sleep in ; building room
    people ; go to, return to, live in ; building
    people ; go to, return to ; square room
    vehicle cart ; go to, arrive at, return to ; building square
    people animal ; arrive at ; building
    animal critter vehicle ; fall into ; gap water
    rail ; arrive at ; building
    vehicle cart ; come out of ; tunnel
"""

# Scenes: a name, a weight, then the fields of `world_forms.Scene`.
SCENES = """
[cross] 22
subjects: animal critter
verbs: cross
objects: routes tunnel water land gap
unable: tired exhausted sick injured lazy sleepy afraid frightened nervous shy cautious suspicious worried young
    distracted clumsy slow
forbidding: wide long narrow muddy icy slippery deep polluted frozen flooded closed blocked steep vast stony dusty
    crowded rough bumpy
eager: hungry thirsty curious impatient brave playful excited happy starving bold stubborn afraid agile furious
inviting: short dry open shady sunny straight empty

[people cross] 3
subjects: people
verbs: cross
objects: routes tunnel water land gap
unable: tired exhausted sick injured lazy afraid frightened nervous cautious worried
forbidding: wide long narrow muddy icy slippery deep polluted frozen flooded closed blocked steep vast stony dangerous
    crowded rough
eager: hungry thirsty curious impatient brave excited bold stubborn
inviting: short dry open shady sunny straight

[follow] 6
subjects: animal critter people
verbs: follow
objects: road
unable: tired exhausted sick injured lazy sleepy distracted suspicious stubborn impatient
forbidding: long steep muddy stony winding narrow icy slippery dusty flooded closed bumpy blocked dangerous
eager: curious brave cautious patient hungry thirsty
inviting: short straight wide shady dry sunny

[shun] 7 inverse
subjects: animal critter people
verbs: avoid, leave
objects: routes land
eager: afraid frightened nervous cautious tired sick shy suspicious sad
inviting: muddy icy slippery flooded steep narrow dusty stony polluted crowded bumpy dark closed
    damp haunted winding

[enter] 9
subjects: animal critter people
verbs: enter, explore
objects: building room tunnel
unable: afraid frightened shy nervous cautious suspicious tired lazy distracted sick worried sad
forbidding: dark narrow closed flooded haunted damp crowded dusty blocked burnt dangerous low
eager: curious hungry thirsty brave excited bold playful starving
inviting: open empty sunny bright abandoned

[visit] 3
subjects: people
verbs: visit
objects: building
unable: tired sick impatient lazy sad
forbidding: closed crowded distant damp dusty modern ugly flooded
eager: curious happy patient rich
inviting: famous magnificent modern interesting open mysterious haunted

[reach] 5
subjects: animal critter people
verbs: reach
objects: building land slope water sea
unable: tired exhausted sick injured lazy slow young distracted
forbidding: distant high
eager: brave stubborn patient fast thirsty bold agile

[drive] 8
subjects: vehicle cart
verbs: cross
objects: routes tunnel
unable: heavy slow overloaded out_of_order rusty
forbidding: narrow steep muddy icy slippery flooded winding bumpy stony closed
eager: fast powerful light reliable sturdy
inviting: straight open dry

[roll] 4
subjects: rail
verbs: cross
objects: passage tunnel land
unable: heavy slow out_of_order long
forbidding: flooded closed narrow icy
eager: fast powerful light
inviting: open dry straight

[arrive] 4
subjects: vehicle cart rail hauler
verbs: reach
objects: building slope
unable: slow overloaded out_of_order rusty
forbidding: distant high
eager: fast powerful reliable

[drive through] 5
subjects: vehicle cart
verbs: enter, leave
objects: tunnel square
unable: heavy slow overloaded out_of_order rusty
forbidding: narrow flooded closed icy slippery
eager: fast powerful
inviting: open dry

[sail] 6
subjects: boat
verbs: cross
objects: water sea
unable: heavy overloaded fragile
forbidding: vast frozen rough polluted
eager: light sturdy
inviting: quiet deep

[climb] 6
subjects: critter people
verbs: climb
objects: slope barrier
unable: tired exhausted sick injured lazy clumsy young afraid nervous cautious sleepy
forbidding: high steep slippery dangerous
eager: brave agile curious bold stubborn hungry
inviting: low

[climb hills] 3
subjects: animal
verbs: climb
objects: slope
unable: tired exhausted sick injured lazy clumsy young afraid sleepy
forbidding: high steep slippery icy
eager: brave agile curious bold stubborn hungry strong

[jump] 7
subjects: animal people
verbs: jump over
objects: barrier gap
unable: tired exhausted sick injured lazy clumsy young afraid sleepy
forbidding: high wide deep dangerous
eager: brave agile playful excited frightened impatient
inviting: low narrow

[fetch] 10
subjects: animal
verbs: push, drag, move, hide, knock over, take away
objects: object
unable: tired exhausted lazy sick injured young clumsy distracted shy
forbidding: heavy bulky fragile
eager: curious playful furious hungry jealous excited bold strong
inviting: light shiny colorful

[shove] 3
subjects: animal
verbs: push, move, knock over
objects: furniture
unable: tired exhausted lazy sick young
forbidding: heavy bulky sticky
eager: furious playful excited strong
inviting: light

[sniff] 4
subjects: animal critter
verbs: touch
objects: object furniture
unable: afraid shy cautious nervous suspicious tired frightened sad
forbidding: dusty sticky fragile
eager: curious playful bold
inviting: shiny colorful soft

[carry] 5
subjects: people
verbs: carry, lift, move, push, pull
objects: object furniture
unable: tired exhausted sick injured lazy young clumsy
forbidding: heavy bulky fragile sticky
eager: strong brave proud
inviting: light

[hoist] 6
subjects: hauler
verbs: lift, move, transport, push, pull
objects: object furniture
unable: slow out_of_order
forbidding: heavy bulky fragile
eager: powerful strong reliable
inviting: light

[demolish] 3
subjects: hauler
verbs: destroy
objects: building
unable: slow out_of_order rusty
forbidding: famous magnificent distant
eager: powerful
inviting: haunted burnt empty

[eat] 18
subjects: animal critter people
verbs: eat, taste, finish, swallow
objects: foods
unable: sick tired nervous sad suspicious worried distracted sleepy frightened shy
forbidding: salty bitter spicy burnt greasy scalding tasteless rotten raw hard sour sweet frozen sticky dry
eager: hungry greedy curious starving
inviting: delicious fresh ripe juicy sweet appetizing

[refuse] 4 inverse
subjects: animal people
verbs: refuse
objects: foods
eager: sick nervous sad stubborn suspicious worried tired
inviting: salty bitter spicy burnt greasy scalding tasteless rotten raw hard sour sweet frozen

[graze] 6
subjects: animal critter
verbs: eat, smell
objects: flower shrub
unable: cautious tired suspicious nervous sad worried
forbidding: thorny withered dry
eager: hungry starving greedy curious
inviting: fragrant colorful

[cook] 2
subjects: people
verbs: prepare, buy, choose
objects: produce fruit
unable: tired lazy impatient
forbidding: rotten hard expensive bitter sour frozen
eager: hungry greedy
inviting: fresh delicious ripe juicy appetizing

[dress] 5
subjects: people
verbs: wear, choose, try on
objects: garment
unable: impatient shy sad proud tired
forbidding: tight expensive ugly torn stained old-fashioned worn uncomfortable wrinkled long short narrow muddy
eager: happy excited
inviting: elegant comfortable light soft colorful magnificent

[buy] 8
subjects: people
verbs: buy, choose
objects: furniture object machine vehicle cart boat garment
unable: impatient cautious lazy suspicious
forbidding: expensive bulky ugly fragile heavy broken rusty useless slow uncomfortable hard old-fashioned tight worn
eager: rich happy
inviting: comfortable modern light fast precious rare useful shiny powerful magnificent elegant reliable colorful sturdy

[read] 6
subjects: people
verbs: read, finish, understand, translate, copy
objects: text
unable: tired impatient distracted sleepy lazy young sick
forbidding: long boring unreadable complicated confusing incomplete secret
eager: curious patient
inviting: short funny interesting famous mysterious

[borrow] 3
subjects: people
verbs: keep, hide, steal
objects: text object
unable: distracted
forbidding: useless boring torn bulky heavy broken
eager: jealous greedy cautious
inviting: precious rare useful secret interesting

[mend] 3
subjects: people
verbs: repair
objects: machine vehicle cart
unable: tired lazy impatient clumsy distracted
forbidding: complicated rusty useless
eager: patient
inviting: broken out_of_order useful

[employ] 3
subjects: people
verbs: use
objects: machine vehicle cart
unable: lazy impatient distracted
forbidding: out_of_order broken complicated dangerous noisy rusty
eager: impatient tired
inviting: useful reliable powerful modern comfortable

[discard] 5
subjects: people
verbs: throw away, sell
objects: object furniture garment machine text
unable: stubborn lazy sad distracted
forbidding: precious useful rare elegant
eager: furious impatient
inviting: broken useless torn old-fashioned worn ugly stained boring uncomfortable incomplete

[wash] 2
subjects: people
verbs: clean
objects: object furniture
unable: tired lazy sick
forbidding: fragile precious
eager: patient
inviting: muddy dusty stained sticky

[launder] 2
subjects: people
verbs: wash
objects: garment
unable: tired lazy sick
forbidding: torn worn
eager: patient
inviting: muddy stained

[garden] 4
subjects: people
verbs: cut, pick, water
objects: flower
unable: tired lazy distracted
forbidding: rare fragile withered
eager: patient
inviting: fragrant magnificent colorful dry

[portray] 3
subjects: people
verbs: paint, photograph, draw
objects: building land slope sea flower tree
unable: tired impatient lazy
forbidding: ugly dark distant
eager: patient happy
inviting: magnificent famous mysterious
"""
