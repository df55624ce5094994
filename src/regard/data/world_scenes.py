"""Hold the scenes of the demo's world: who does what to whom, and for which reasons.

A scene is written ``[name] weight [inverse]`` and then its fields: the kinds of its subjects, its verbs, the
kinds of its objects, and four lists of reasons. ``unable`` keeps the subject from doing it, ``forbidding`` is
what about the object keeps it from being done; ``eager`` and ``inviting`` are why it is done after all. A
scene marked inverse tells of shunning, where a fault is the reason to do it.
"""

SCENES = """
[cross] 22
subjects: animal critter
verbs: cross
objects: routes water land gap
unable: tired exhausted sick injured lazy sleepy afraid frightened nervous shy cautious suspicious worried
    young distracted clumsy slow
forbidding: wide long muddy icy slippery deep polluted frozen flooded closed blocked steep vast stony dusty
    crowded rough bumpy
eager: hungry thirsty curious impatient brave playful excited happy starving bold stubborn afraid agile
    furious
inviting: short dry open shady sunny straight empty

[people cross] 3
subjects: people
verbs: cross
objects: routes water land gap
unable: tired exhausted sick injured lazy afraid frightened nervous cautious worried
forbidding: wide long muddy icy slippery deep polluted frozen flooded closed blocked steep vast stony
    dangerous crowded rough
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
inviting: muddy icy slippery flooded steep narrow dusty stony polluted crowded bumpy dark closed damp
    haunted winding

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
objects: routes
unable: heavy slow overloaded out_of_order rusty
forbidding: narrow steep muddy icy slippery flooded winding bumpy stony closed
eager: fast powerful light reliable sturdy
inviting: straight open dry

[roll] 4
subjects: rail
verbs: cross
objects: passage land
unable: heavy slow out_of_order long
forbidding: flooded closed narrow icy
eager: fast powerful light
inviting: open dry straight

[arrive] 4
subjects: vehicle cart rail hauler
verbs: reach
objects: building
unable: slow overloaded out_of_order rusty
forbidding: distant
eager: fast powerful reliable

[drive through] 5
subjects: vehicle cart
verbs: enter, leave
objects: tunnel
unable: heavy slow overloaded out_of_order rusty
forbidding: narrow flooded closed icy slippery
eager: fast light
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
verbs: eat, taste
objects: flower shrub
unable: cautious tired suspicious nervous sad worried
forbidding: thorny withered dry
eager: hungry starving greedy curious
inviting: fragrant colorful

[scent] 2
subjects: animal critter
verbs: smell
objects: flower
unable: sick sad tired shy distracted
forbidding: withered
eager: curious happy playful
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
forbidding: tight expensive ugly torn stained old-fashioned worn uncomfortable wrinkled long short narrow
    muddy
eager: happy excited
inviting: elegant comfortable light soft colorful magnificent

[buy] 8
subjects: people
verbs: buy, choose
objects: furniture object machine vehicle cart boat garment
unable: impatient cautious lazy suspicious
forbidding: expensive bulky ugly fragile heavy broken rusty useless slow uncomfortable hard old-fashioned
    tight worn
eager: rich happy
inviting: comfortable modern light fast precious rare useful shiny powerful magnificent elegant reliable
    colorful sturdy

[read] 6
subjects: people
verbs: read, finish, understand, translate, copy
objects: text
unable: tired impatient distracted sleepy lazy young sick
forbidding: long boring unreadable complicated confusing incomplete secret
eager: curious patient
inviting: short funny interesting mysterious

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
inviting: dusty sticky

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
